"""Outputs by name: one computation for all that a request wants, and the tensors of the answer, in JSON or binary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from isolatent_export import Bundle
from isolatent_export.manifest import Manifest
from isolatent_serve.outputs import EMBEDDINGS, POSTERIORS, RECONSTRUCTIONS, Array, Compute, Graphs, Shapes, Tensors

DEFAULT = ("mean", "variance")
"""What comes when a request names no outputs."""

HEADER_LENGTH = "Inference-Header-Content-Length"

_OUTPUTS = (POSTERIORS, EMBEDDINGS, RECONSTRUCTIONS)


@dataclass(frozen=True)
class Wanted:
    """An output that a request wants, `binary` or in JSON."""

    name: str
    binary: bool


def shapes(manifest: Manifest) -> Shapes:
    """Every output of a model: name -> shape of one item's."""
    return {name: shape for output in _OUTPUTS for name, shape in output.shapes(manifest).items()}


def compute(bundle: Bundle, names: Iterable[str]) -> tuple[Compute, Shapes]:
    """The computation that gives at least these outputs, and the shapes of one item's.

    Equal computations may run on rows of several requests together.
    """
    wanted = set(names)
    parts = [output for output in _OUTPUTS if wanted & output.shapes(bundle.manifest).keys()]
    computes = tuple(output.prepare(bundle, 0) for output in parts)
    given = {name: shape for output in parts for name, shape in output.shapes(bundle.manifest).items()}
    return computes[0] if len(computes) == 1 else _Together(computes), given


@dataclass(frozen=True)
class _Together:
    """Several computations on the same items, for which the encoder runs once."""

    parts: tuple[Compute, ...]

    def __call__(self, graphs: Graphs, items: Array) -> Tensors:
        encoded = _Encoded(graphs, items)
        return {name: tensor for part in self.parts for name, tensor in part(encoded, items).items()}


class _Encoded:
    """Graphs whose encoder has run already, on the only items that it will be asked about."""

    def __init__(self, graphs: Graphs, items: Array) -> None:
        self._mean, self._log_variance = graphs.encode(items)
        self.decode = graphs.decode

    def encode(self, _items: Array) -> tuple[Array, Array]:
        return self._mean, self._log_variance


def write(tensors: Tensors, wanted: Sequence[Wanted], manifest: Manifest, request_id: str | None) -> Response:
    """The answer: JSON, and behind it what is wanted as bytes, little-endian float32."""
    listed: list[dict[str, Any]] = []
    sections: list[bytes] = []
    for output in wanted:
        tensor = np.ascontiguousarray(tensors[output.name], "<f4")
        facts = {"name": output.name, "datatype": "FP32", "shape": tensor.shape}
        if output.binary:
            sections.append(tensor.tobytes())
            listed.append({**facts, "parameters": {"binary_data_size": tensor.nbytes}})
        else:
            listed.append({**facts, "data": tensor.reshape(-1)})
    said = {} if request_id is None else {"id": request_id}
    members = {"model_name": manifest.name, "model_version": manifest.version, **said, "outputs": listed}
    header = orjson.dumps(members, option=orjson.OPT_SERIALIZE_NUMPY)
    if not sections:
        return Response(header, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(header))}
    return Response(b"".join([header, *sections]), headers=headers, media_type="application/octet-stream")
