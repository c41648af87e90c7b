"""Bytes and numbers from outside become the arrays an encoder takes. One way for training, serving and batch jobs.

A new modality is one new file beside pixels.py and clouds.py, and one line in `_MODALITIES`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs import clouds, npy, pixels
from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.manifest import InputSpec

__all__ = [
    "InputError",
    "Limits",
    "decode_array",
    "decode_arrays",
    "decode_batch",
    "decode_item",
    "decode_numbers",
    "is_item",
    "require_memory",
]

Array = NDArray[Any]


class Modality(Protocol):
    """What this package asks of the module of a modality. `spec` is the modality's own."""

    def decode(self, data: bytes, spec: Any, limits: Limits, /) -> Array:
        """One file as the array of shape `spec.shape`."""

    def parse(self, data: bytes, /) -> Array:
        """The array of an npy file, of any shape."""

    def is_item(self, shape: tuple[int, ...], spec: Any, /) -> bool:
        """Whether an array of this shape is one item."""

    def wrong_shape(self, shape: tuple[int, ...], spec: Any, batch: str, /) -> InputError:
        """What to say of an array of another shape."""

    def convert(self, items: Array, spec: Any, limits: Limits, /) -> Array:
        """Items (N, ...), each of a shape that `is_item` accepts, as (N, *spec.shape)."""

    def from_numbers(self, numbers: Array, /) -> Array:
        """Numbers of JSON in the dtype that `convert` takes."""


_MODALITIES: dict[str, Modality] = {"image": pixels, "point_cloud": clouds}


def decode_item(data: bytes, spec: InputSpec, limits: Limits) -> Array:
    """One file's bytes (an image, a cloud or a mesh, or an npy array of one item) as the array of shape `spec.shape`.

    Raises InputError with the reason and the remedy.
    """
    if len(data) == 0:
        raise InputError("empty_input", "0 bytes; send the content of a file")
    if len(data) > limits.item_bytes:
        raise InputError(
            "too_many_bytes", f"{len(data)} bytes, the limit is {limits.item_bytes} per item; send a smaller file"
        )
    modality = _MODALITIES[spec.modality]
    if data.startswith(npy.MAGIC):
        return decode_array(modality.parse(data), spec, limits)
    return modality.decode(data, spec, limits)


def decode_batch(data: bytes, spec: InputSpec, limits: Limits) -> Array:
    """An npy file of items, images (N, H, W[, C]) uint8 or clouds (N, M, 3), as one array (N, *spec.shape).

    An array of a single item's shape counts as one item; there is no per-item loop. Raises InputError.
    """
    array = _MODALITIES[spec.modality].parse(data)
    if is_item(array.shape, spec):
        return decode_array(array, spec, limits)[None]
    return decode_arrays(array, spec, limits)


def decode_array(array: Array, spec: InputSpec, limits: Limits = Limits()) -> Array:
    """One item given as an array: pixels (H, W) or (H, W, C) uint8, or points (M, 3).

    Raises InputError on another shape or dtype.
    """
    if not is_item(array.shape, spec):
        raise _MODALITIES[spec.modality].wrong_shape(array.shape, spec, "")
    item: Array = _MODALITIES[spec.modality].convert(array[None], spec, limits)[0]
    return item


def decode_arrays(array: Array, spec: InputSpec, limits: Limits = Limits()) -> Array:
    """Items given as one array, pixels (N, H, W[, C]) uint8 or points (N, M, 3), as (N, *spec.shape).

    Raises InputError on another shape or dtype, and when there are none or too many.
    """
    modality = _MODALITIES[spec.modality]
    if array.ndim == 0 or not is_item(array.shape[1:], spec):
        raise modality.wrong_shape(array.shape, spec, "N")
    if len(array) == 0:
        raise InputError("empty_input", "an array of 0 items; send at least one")
    if len(array) > limits.items:
        raise InputError("too_many_items", f"{len(array)} items, the limit is {limits.items}; send several requests")
    require_memory(len(array), spec, limits)
    return modality.convert(array, spec, limits)


def decode_numbers(numbers: Any, spec: InputSpec, limits: Limits) -> list[Array] | None:
    """Nested lists of numbers as items, integers 0..255 or points x, y, z: one or a batch, told apart by the shape.

    `numbers` must hold no strings: NumPy would reserve room for the longest one everywhere. Returns None when it is no
    rectangular nest of numbers. Raises InputError when it is one of a wrong shape.
    """
    try:
        array = np.asarray(numbers)
    except ValueError:  # ragged
        return None
    if array.dtype.kind not in "iuf" or array.ndim < 2:
        return None
    modality = _MODALITIES[spec.modality]
    if is_item(array.shape, spec):
        return [decode_array(modality.from_numbers(array), spec, limits)]
    if not is_item(array.shape[1:], spec):
        raise modality.wrong_shape(array.shape, spec, "")
    return list(decode_arrays(modality.from_numbers(array), spec, limits))


def require_memory(count: int, spec: InputSpec, limits: Limits) -> None:
    """Raise InputError when so many inputs, once decoded, are more than a request may have."""
    each = math.prod(spec.shape) * (1 if spec.modality == "image" else 4)
    if count * each > limits.decoded_bytes:
        raise InputError(
            "too_much_memory",
            f"{count} inputs take {count * each} bytes once decoded, the limit is {limits.decoded_bytes}; "
            f"send at most {limits.decoded_bytes // each} per request",
        )


def is_item(shape: tuple[int, ...], spec: InputSpec) -> bool:
    """Whether an array of this shape is one item: (H, W[, C]) for images, (M, 3) for clouds of any number of points."""
    return _MODALITIES[spec.modality].is_item(tuple(shape), spec)
