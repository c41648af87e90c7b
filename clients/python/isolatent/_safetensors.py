"""The safetensors format, read strictly: float32 tensors only, every length compared with the bytes that are there.

Layout: 8 bytes little-endian header length, the header as JSON {name: {dtype, shape, data_offsets}}, the tensors.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER_LIMIT = 2**20
"""An answer has three tensors at most; a longer header is not one of ours."""

Tensors = dict[str, NDArray[np.float32]]


def parse(data: bytes) -> tuple[Tensors, dict[str, str]]:
    """The tensors by name, as read-only views of `data`, and the metadata. Raises ValueError with what is wrong."""
    if len(data) < 8:
        raise ValueError(f"{len(data)} bytes, too few for a header")
    length = int.from_bytes(data[:8], "little")
    if length > min(_HEADER_LIMIT, len(data) - 8):
        raise ValueError(f"the header claims {length} bytes, {len(data) - 8} follow")
    header = _header(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ is no map of texts")
    return _tensors(header, memoryview(data)[8 + length :]), metadata


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the header is not JSON") from None
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    return header


def _tensors(header: dict[str, Any], body: memoryview) -> Tensors:
    """The tensors, which must cover `body` exactly: in order, without gaps or overlaps."""
    tensors: Tensors = {}
    position = 0
    for name, entry in sorted(header.items(), key=lambda item: _begin(*item)):
        shape, (begin, end) = _shape(name, entry), entry["data_offsets"]
        if begin != position or not begin <= end <= len(body) or end - begin != 4 * math.prod(shape):
            raise ValueError(f"tensor {name!r} of shape {shape} claims bytes {begin} to {end} of {len(body)}")
        tensors[name] = np.frombuffer(body[begin:end], "<f4").reshape(shape)
        position = end
    if position != len(body):
        raise ValueError(f"{len(body) - position} bytes belong to no tensor")
    return tensors


def _begin(name: str, entry: Any) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)):
        raise ValueError(f"tensor {name!r} has no data_offsets")
    begin: int = offsets[0]
    return begin


def _shape(name: str, entry: dict[str, Any]) -> tuple[int, ...]:
    shape = entry.get("shape")
    if entry.get("dtype") != "F32":
        raise ValueError(f"tensor {name!r} is {entry.get('dtype')}, expected F32")
    if not (isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape)):
        raise ValueError(f"tensor {name!r} has no shape")
    return tuple(shape)
