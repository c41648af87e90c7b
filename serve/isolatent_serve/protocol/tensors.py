"""Input tensors as a request carries them: elements in JSON, nested or flat, or as bytes; or a file in each element."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from isolatent_export.inputs import InputError, Limits, decode_arrays
from isolatent_export.manifest import InputSpec
from isolatent_serve import at_once
from isolatent_serve.inputs import Array, Files, Inputs, Items, Json
from isolatent_serve.protocol.metadata import DATATYPES

FILES = "BYTES"

_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Numbers:
    """A tensor of numbers: `elements` are bytes, row-major and little-endian, or the list that JSON had."""

    datatype: str
    shape: tuple[int, ...]
    elements: memoryview | list[Any]

    def are_few(self, spec: InputSpec) -> bool:
        """Pixels as bytes are a view of the body; lists are made arrays, and clouds are sampled and normalised."""
        if not isinstance(self.elements, memoryview):
            return False
        if spec.modality == "image":
            return len(self.elements) <= at_once.COPIED_BYTES
        return at_once.are_quick_clouds(self.shape, len(self.elements), spec)

    def items(self, spec: InputSpec, limits: Limits) -> Items:
        """All items as one array (N, H, W, C) or (N, P, 3), by the same way as those of an npy body."""
        taken = DATATYPES[spec.modality]
        if self.datatype != taken:
            advice = f"convert it, or send files as {FILES}"
            raise InputError("wrong_dtype", f"datatype {self.datatype[:20]!r}, the model takes {taken}; {advice}")
        if 0 in self.shape:
            raise InputError("empty_input", f"shape {list(self.shape)} has no elements; send at least one item")
        return Items(decode_arrays(self._array(), spec, limits))

    def _array(self) -> Array:
        dtype, count = _DTYPES[self.datatype], math.prod(self.shape)
        if isinstance(self.elements, list):
            return _from_json(_flat(self.elements, self.shape), dtype).reshape(self.shape)
        if count * dtype.itemsize != len(self.elements):
            raise InputError(
                "wrong_shape",
                f"{len(self.elements)} bytes, where shape {list(self.shape)} of {self.datatype} has "
                f"{count * dtype.itemsize}; correct the shape, or send the whole tensor",
            )
        return np.frombuffer(self.elements, dtype).reshape(self.shape)


def files(shape: Sequence[int], elements: memoryview | list[Any], limits: Limits) -> Inputs:
    """The files of a tensor (N,) or (N, 1) of BYTES, in JSON as base64 or data URLs. Raises InputError."""
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise InputError("wrong_shape", f"shape {list(shape)}; send files as [N]: one in each element")
    count = shape[0]
    if count == 0:
        raise InputError("empty_input", "a tensor of 0 files; send at least one")
    if count > limits.items:
        raise InputError("too_many_items", f"{count} items, the limit is {limits.items}; send several requests")
    if isinstance(elements, memoryview):
        return Files(_split(elements, count))
    texts = _flat(elements, shape)
    if set(map(type, texts)) != {str}:
        raise InputError("undecodable", "elements that are no strings; send base64, or the files as binary data")
    return Json(texts)


def _split(elements: memoryview, count: int) -> list[bytes]:
    """Each element follows its length, a 4-byte number."""
    found: list[bytes] = []
    start = 0
    while start < len(elements) and len(found) < count:
        begin = start + _LENGTH.size
        stop = begin + _LENGTH.unpack_from(elements, start)[0] if begin <= len(elements) else begin
        if stop > len(elements):
            raise InputError("undecodable", f"element {len(found)} ends {stop - len(elements)} bytes after the data")
        found.append(bytes(elements[begin:stop]))
        start = stop
    if len(found) != count or start != len(elements):
        rest = len(elements) - start
        raise InputError("wrong_shape", f"{len(found)} elements and {rest} bytes left, where the shape has {count}")
    return found


def _flat(elements: list[Any], shape: Sequence[int]) -> list[Any]:
    """The elements in one list. Raises InputError unless `elements` is that list, or nested as `shape` says."""
    if len(shape) == 0 or (elements and type(elements[0]) is not list):
        level, expected = elements, math.prod(shape)
        fits = len(level) == expected
    else:
        level, fits = [elements], True
        for side in shape:
            fits = fits and all(type(entry) is list and len(entry) == side for entry in level)
            level = list(chain.from_iterable(level)) if fits else []
    if not fits:
        raise InputError("wrong_shape", f"`data` has not the {math.prod(shape)} elements of shape {list(shape)}")
    return level


def _from_json(numbers: list[Any], dtype: np.dtype[Any]) -> Array:
    whole = dtype.kind == "u"
    if not set(map(type, numbers)) <= ({int} if whole else {int, float}):
        raise InputError("wrong_dtype", f"elements that are no {'whole ' if whole else ''}numbers")
    try:
        if whole:
            return np.frombuffer(bytes(numbers), dtype)
        with np.errstate(over="ignore"):  # what overflows is found, and refused, with everything that is not finite
            return np.array(numbers, np.float64).astype(dtype)
    except ValueError:
        raise InputError("wrong_dtype", "numbers beyond 0..255; UINT8 pixels are 0..255") from None
