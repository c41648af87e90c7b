"""Inputs as a request carries them, and the way from there to the array an encoder takes.

Everything here is plain functions of bytes: decoding.py chooses where they run.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs import InputError, Limits, decode_batch, decode_item, decode_numbers, is_item
from isolatent_export.manifest import InputSpec
from isolatent_serve import at_once

Array = NDArray[Any]
Item = bytes | str | list[Any]
"""A file; a data URL or base64 string; nested numbers. JSON can say other things too, which `decode` refuses."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_DATA_URL = re.compile(r"data:[^,]{0,256};base64,", re.IGNORECASE)
_DEEPEST = 4  # (N, H, W, C)
_NUMBERS = {"image": "whole numbers 0..255 as (height, width, channels)", "point_cloud": "numbers as (points, 3)"}
_DTYPES = {"image": np.uint8, "point_cloud": np.float32}


@dataclass(frozen=True)
class Items:
    """The inputs of a request one by one. `single`: the client sent one input, not a list with one in it."""

    values: Sequence[Any] | Array
    single: bool = False

    def pointer(self, index: int) -> str:
        """Where input `index` stands in the request, as a JSON pointer."""
        return "/input" if self.single else f"/input/{index}"


class Inputs(Protocol):
    """What a body carries."""

    def are_few(self, spec: InputSpec) -> bool:
        """Whether `items` takes a fraction of a millisecond."""

    def items(self, spec: InputSpec, limits: Limits) -> Items:
        """The inputs one by one. Raises InputError for what is wrong with all of them together."""


@dataclass(frozen=True)
class Files:
    """Files as they are: multipart parts, or the raw body."""

    files: list[bytes]
    single: bool = False

    def are_few(self, _spec: InputSpec) -> bool:
        """They are there already."""
        return True

    def items(self, _spec: InputSpec, _limits: Limits) -> Items:
        """One item per file; multipart.py has counted them."""
        return Items(self.files, self.single)


@dataclass(frozen=True)
class Bulk:
    """An npy file of many items: the array is the answer, there is nothing to do per item."""

    data: bytes

    def are_few(self, spec: InputSpec) -> bool:
        """Pixels are a view of the file, or copied once; clouds are sampled and normalised."""
        return at_once.is_quick_array(self.data, spec)

    def items(self, spec: InputSpec, limits: Limits) -> Items:
        """All items as one array (N, H, W, C) or (N, P, 3)."""
        return Items(decode_batch(self.data, spec, limits))


@dataclass(frozen=True)
class Json:
    """The member `input` of a JSON body."""

    value: Any

    def are_few(self, _spec: InputSpec) -> bool:
        """Nested numbers are many."""
        return at_once.are_few(self.value if isinstance(self.value, list) else [self.value])

    def items(self, spec: InputSpec, limits: Limits) -> Items:
        """Tell one item from a list of items: a list is one item when nothing in it looks like an item."""
        if not isinstance(self.value, list):
            return Items([self.value], single=True)
        if not self.value:
            raise InputError("empty_input", "a list of 0 inputs; send at least one")
        if not any(isinstance(entry, str) or is_item(_shape(entry), spec) for entry in self.value):
            return Items([self.value], single=True)
        if len(self.value) > limits.items:
            count = len(self.value)
            raise InputError("too_many_items", f"{count} items, the limit is {limits.items}; send several requests")
        return Items(self.value)


def decode(item: Item | Any, spec: InputSpec, limits: Limits, leave: Callable[[bytes], bool]) -> Array | bytes:
    """One item as the array of shape `spec.shape`, or as a file when that is one to `leave` for another place.

    Raises InputError with the reason and the remedy.
    """
    if isinstance(item, list):
        return _from_numbers(item, spec, limits)
    if isinstance(item, str):
        item = _from_text(item, limits)
    if isinstance(item, bytes):
        return item if leave(item) else decode_item(item, spec, limits)
    raise InputError("undecodable", f"a JSON {_json_type(item)}; send a data URL, a base64 string or nested numbers")


def _from_text(text: str, limits: Limits) -> bytes:
    """The bytes in a data URL or base64 string, measured before they are decoded."""
    url = _DATA_URL.match(text)
    if url is None and (scheme := _SCHEME.match(text)):
        if scheme[0].lower() == "data:":
            raise InputError("undecodable", "a data URL without base64; write data:image/png;base64,...")
        raise InputError("urls_refused", f"{scheme[0][:20]} addresses are not fetched; send the file itself")
    start = url.end() if url else 0
    size = (len(text) - start) * 3 // 4
    if size > limits.item_bytes + 2:
        raise InputError(
            "too_many_bytes", f"about {size} bytes, the limit is {limits.item_bytes} per item; send a smaller file"
        )
    try:
        return binascii.a2b_base64(text[start:], strict_mode=True)
    except ValueError:  # binascii.Error, and characters outside ASCII
        raise InputError("undecodable", "neither a data URL nor base64 (RFC 4648 section 4, padded)") from None


def _from_numbers(numbers: list[Any], spec: InputSpec, limits: Limits) -> Array:
    decoded = decode_numbers(numbers, spec, limits) if _only_numbers(numbers) else None
    if decoded is None:
        raise InputError("undecodable", f"not a rectangular list of numbers; send {_NUMBERS[spec.modality]}")
    if len(decoded) != 1:
        raise InputError("wrong_shape", f"{len(decoded)} items where one belongs; put them into `input` one by one")
    return decoded[0]


def _only_numbers(nest: list[Any]) -> bool:
    """Whether lists in lists end in numbers only, all at one depth.

    NumPy would make room for the longest string once per element: it must never see one.
    """
    level: list[Any] = nest
    for _ in range(_DEEPEST):
        kinds = set(map(type, level))
        if kinds != {list}:
            return bool(kinds) and kinds <= {int, float}
        level = list(chain.from_iterable(level))
    return False


def _shape(nest: Any) -> tuple[int, ...]:
    """Shape of nested lists, judged by the first element at each depth."""
    shape: tuple[int, ...] = ()
    while isinstance(nest, list) and nest and len(shape) < _DEEPEST:
        shape += (len(nest),)
        nest = nest[0]
    return shape


def _json_type(value: Any) -> str:
    return {dict: "object", bool: "boolean", type(None): "null"}.get(type(value), "number")


def stacked(arrays: list[Array], spec: InputSpec) -> Array:
    """Decoded items as one array (N, H, W, C) uint8 or (N, P, 3) float32; N may be 0."""
    if len(arrays) == 1:
        return arrays[0][np.newaxis]  # no copy
    return np.stack(arrays) if arrays else np.empty((0, *spec.shape), _DTYPES[spec.modality])
