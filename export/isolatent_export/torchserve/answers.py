"""Answers as bytes: results in JSON, safetensors, npy or as one file, refusals as problem documents (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson
from safetensors.numpy import save

from isolatent_export import files
from isolatent_export.manifest import Manifest
from isolatent_export.outputs import Tensors
from isolatent_export.torchserve.requests import Refusal, Request
from isolatent_export.torchserve.store import RESPONSE_BYTES

JSON = "application/json"
SAFETENSORS = "application/x-safetensors"
NPY = "application/x-npy"
PNG = "image/png"
PLY = "model/ply"
PROBLEM = "application/problem+json"

_FILES = {"image": PNG, "point_cloud": PLY}
_ARRAYS = frozenset({"embedding", "reconstruction"})
"""Outputs of one tensor besides scalars, which formats of one tensor can carry."""

_DIGITS = 13  # bytes of a number in JSON, with its comma
_STATUS = {"malformed_json": 400, "missing_input": 400, "unknown_field": 400, "invalid_option": 400}
_STATUS |= {"not_acceptable": 406, "internal": 500}

_PUBLIC = (
    "input",
    "latent",
    "reconstruction_shape",
    "reconstruction_error",
    "objective",
    "family",
    "metrics",
    "transforms",
)
"""Members of the manifest that clients are told."""


@dataclass(frozen=True)
class Answer:
    """What goes back to one client."""

    content: bytes
    media_type: str
    status: int = 200

    @property
    def phrase(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase


def choose(request: Request, manifest: Manifest) -> str:
    """The first media type of its Accept header in which the request can be answered. Raises Refusal."""
    offers = [JSON] if request.output == "model" else [JSON, SAFETENSORS]
    if request.output in _ARRAYS:
        offers.append(NPY)
    if request.output == "reconstruction" and len(request.items) == 1:
        offers.append(_FILES[manifest.modality])
    for part in request.accept.split(","):
        wanted = part.split(";")[0].strip().lower()
        if wanted in offers:
            return wanted
        if wanted in ("", "*/*", "application/*"):
            return JSON
    raise Refusal("not_acceptable", f"Accept: {request.accept[:200]}: ask for {' or '.join(offers)}")


def require_writable(request: Request, manifest: Manifest) -> None:
    """Raise Refusal, before anything is computed, for a format that cannot be had or an answer longer than allowed."""
    media_type = choose(request, manifest)
    numbers = 2 * manifest.latent.size + 1
    if request.output == "reconstruction":
        numbers = math.prod(manifest.reconstruction_shape) + 1
    size = len(request.items) * numbers * (_DIGITS if media_type == JSON else 4)
    if size > RESPONSE_BYTES:
        detail = f"an answer of about {size} bytes, the limit is {RESPONSE_BYTES}; send fewer inputs at once"
        raise Refusal("too_much_memory", detail)


def write(tensors: Tensors, request: Request, manifest: Manifest) -> Answer:
    """The results of a request, one row of `tensors` per item."""
    media_type = choose(request, manifest)
    return Answer(_WRITERS[media_type](tensors, request, manifest), media_type)


def model(manifest: Manifest) -> Answer:
    """The facts about the model, as in the HTTP service's list of models."""
    facts = manifest.public()
    public = {
        "id": manifest.name,
        "object": "model",
        "version": manifest.version,
        "modality": manifest.modality,
        "provider": "TorchScript",
        "ready": True,
        **{name: facts[name] for name in _PUBLIC},
    }
    return Answer(orjson.dumps(public), JSON)


def problem(refusal: Refusal, request_id: str | None) -> Answer:
    """The problem document for a request that is refused; input errors point to the input."""
    status = _STATUS.get(refusal.code, 413 if refusal.code.startswith("too_") else 422)
    document: dict[str, Any] = {
        "type": f"urn:isolatent:problem:{refusal.code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": refusal.detail,
        "code": refusal.code,
        "request_id": request_id,
    }
    if refusal.pointer:
        document["errors"] = [{"pointer": refusal.pointer, "detail": refusal.detail}]
    return Answer(orjson.dumps(document), PROBLEM, status)


def _json(tensors: Tensors, request: Request, manifest: Manifest) -> bytes:
    # orjson writes a float32 as the shortest text that reads back to the same float32.
    return orjson.dumps(
        {
            "object": "list",
            "model": manifest.name,
            "version": manifest.version,
            "data": [_item(tensors, request.output, index) for index in range(len(request.items))],
            "usage": {"inputs": len(request.items)},
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _item(tensors: Tensors, kind: str, index: int) -> dict[str, Any]:
    return {"object": kind, "index": index, **{name: tensor[index] for name, tensor in tensors.items()}}


def _safetensors(tensors: Tensors, request: Request, manifest: Manifest) -> bytes:
    facts = {"object": "list", "model": manifest.name, "version": manifest.version, "inputs": str(len(request.items))}
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, facts)


_WRITERS: dict[str, Callable[[Tensors, Request, Manifest], bytes]] = {
    JSON: _json,
    SAFETENSORS: _safetensors,
    NPY: lambda tensors, request, _: files.npy(tensors[request.output]),
    PNG: lambda tensors, request, _: files.png(tensors[request.output][0]),
    PLY: lambda tensors, request, _: files.ply(tensors[request.output][0]),
}
