"""Results as responses: JSON, safetensors, npy, one PNG or one PLY. The numbers are the same bits in each but PNG."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from safetensors.numpy import save
from starlette.responses import Response

from isolatent_export import files
from isolatent_export.manifest import Manifest
from isolatent_serve.options import Options
from isolatent_serve.outputs import Array, Output
from isolatent_serve.results import Result

JSON = "application/json"
SAFETENSORS = "application/x-safetensors"
NPY = "application/x-npy"
PNG = "image/png"
PLY = "model/ply"

WHOLE = frozenset({NPY, PNG, PLY})
"""Formats with no place for the errors of items: all inputs must be good."""

_FILES = {"image": PNG, "point_cloud": PLY}

_QUICK_BYTES = {SAFETENSORS: 2**21, NPY: 2**21, PLY: 2**21}  # these are copied; numbers as text take 50 times longer
QUICK_TEXT_BYTES = 2**16
"""Of numbers, that are written as text on the thread of the event loop."""


@dataclass(frozen=True)
class Answer:
    """All that an answer is written from."""

    result: Result
    output: Output
    manifest: Manifest
    options: Options

    def is_costly(self, media_type: str) -> bool:
        """Whether writing it takes so long that it belongs on another thread than the event loop's."""
        size = sum(tensor.nbytes for tensor in self.result.tensors.values())
        return size > _QUICK_BYTES.get(media_type, QUICK_TEXT_BYTES)


def offers(output: Output, modality: str, count: int) -> tuple[str, ...]:
    """Media types in which `count` results of `output` can be had, the default first."""
    arrays = (NPY,) if output.array else ()
    files = (_FILES[modality],) if output.is_like_input and count == 1 else ()
    return JSON, SAFETENSORS, *arrays, *files


def write(answer: Answer, media_type: str) -> Response:
    """The response, in one of the offered media types."""
    return Response(content(answer, media_type), media_type=media_type)


def content(answer: Answer, media_type: str) -> bytes:
    """The body of the response, in one of the offered media types."""
    return _WRITERS[media_type](answer)


def _json(answer: Answer) -> bytes:
    # orjson writes a float32 as the shortest text that reads back to the same float32.
    return orjson.dumps(
        {
            "object": "list",
            "model": answer.manifest.name,
            "version": answer.manifest.version,
            "data": [_item(answer, index) for index in range(answer.result.count)],
            "usage": {"inputs": answer.result.count, **answer.output.usage},
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _item(answer: Answer, index: int) -> dict[str, Any]:
    error = answer.result.errors.get(index)
    if error:
        return {"object": "error", "index": index, "code": error.code, "detail": error.detail}
    item: dict[str, Any] = {"object": answer.output.kind, "index": index}
    for name, tensor in answer.result.tensors.items():
        item[name] = _value(tensor[index], answer.options.encoding_format)
        if tensor.ndim > 2:  # (N, H, W, C) or (N, P', 3): base64 needs the shape to be read
            item["shape"] = tensor.shape[1:]
    return item


def _value(row: Array, encoding_format: str) -> Any:
    if row.ndim == 0 or encoding_format == "float":
        return row
    return base64.b64encode(np.ascontiguousarray(row, "<f4").tobytes()).decode()


def _safetensors(answer: Answer) -> bytes:
    result, manifest = answer.result, answer.manifest
    facts = {"object": "list", "model": manifest.name, "version": manifest.version, "inputs": str(result.count)}
    if result.errors:
        listed = [{"index": i, "code": e.code, "detail": e.detail} for i, e in sorted(result.errors.items())]
        facts["errors"] = orjson.dumps(listed).decode()
    return save({name: np.ascontiguousarray(tensor) for name, tensor in result.tensors.items()}, facts)


def _array(answer: Answer) -> Array:
    assert answer.output.array is not None
    return np.ascontiguousarray(answer.result.tensors[answer.output.array], "<f4")


_WRITERS: dict[str, Callable[[Answer], bytes]] = {
    JSON: _json,
    SAFETENSORS: _safetensors,
    NPY: lambda answer: files.npy(_array(answer)),
    PNG: lambda answer: files.png(_array(answer)[0]),
    PLY: lambda answer: files.ply(_array(answer)[0]),
}
