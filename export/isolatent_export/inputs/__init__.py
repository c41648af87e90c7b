"""Bytes and numbers from outside become the arrays an encoder takes. One way for training, serving and batch jobs.

A new modality is one new file beside images.py and one line in `_DECODERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs import images, npy
from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.manifest import ImageInput

__all__ = ["InputError", "Limits", "decode_array", "decode_batch", "decode_item", "decode_numbers"]

Array = NDArray[Any]

_DECODERS: dict[str, Callable[[bytes, ImageInput, Limits], Array]] = {"image": images.decode}


def decode_item(data: bytes, spec: ImageInput, limits: Limits) -> Array:
    """One file's bytes (an image, or an npy array of one item) as the array of shape `spec.shape`.

    Raises InputError with the reason and the remedy.
    """
    if len(data) == 0:
        raise InputError("empty_input", "0 bytes; send the content of a file")
    if len(data) > limits.item_bytes:
        raise InputError(
            "too_many_bytes", f"{len(data)} bytes, the limit is {limits.item_bytes} per item; send a smaller file"
        )
    if data.startswith(npy.MAGIC):
        return decode_array(npy.parse(data), spec)
    return _DECODERS[spec.modality](data, spec, limits)


def decode_batch(data: bytes, spec: ImageInput, limits: Limits) -> Array:
    """An npy file of items (N, H, W[, C]) uint8 as one array (N, H, W, C), without a per-item loop.

    An array of a single item's shape counts as one item. Raises InputError.
    """
    array = npy.parse(data)
    if array.ndim > 0 and _matches(array.shape, spec):
        return decode_array(array, spec)[None]
    if array.ndim == 0 or not _matches(array.shape[1:], spec):
        raise _wrong_shape(array.shape, spec, batch="N")
    if len(array) == 0:
        raise InputError("empty_input", "an array of 0 items; send at least one")
    if len(array) > limits.items:
        raise InputError("too_many_items", f"{len(array)} items, the limit is {limits.items}; send several requests")
    return np.ascontiguousarray(_pixels(array).reshape(len(array), *spec.shape))


def decode_array(array: Array, spec: ImageInput) -> Array:
    """One item given as an array (H, W) or (H, W, C) uint8. Raises InputError on another shape or dtype."""
    if not _matches(array.shape, spec):
        raise _wrong_shape(array.shape, spec)
    return np.ascontiguousarray(_pixels(array).reshape(spec.shape))


def decode_numbers(numbers: Any, spec: ImageInput, limits: Limits) -> list[Array] | None:
    """Nested lists of integers 0..255 as items: one item or a batch of them, told apart by the shape.

    `numbers` must hold no strings: NumPy would reserve room for the longest one everywhere. Returns None when it is no
    rectangular nest of numbers. Raises InputError when it is one of a wrong shape.
    """
    try:
        array = np.asarray(numbers)
    except ValueError:  # ragged
        return None
    if array.dtype.kind not in "iuf" or array.ndim < 2:
        return None
    if _matches(array.shape, spec):
        return [decode_array(_whole(array), spec)]
    if not _matches(array.shape[1:], spec):
        raise _wrong_shape(array.shape, spec)
    if len(array) > limits.items:
        raise InputError("too_many_items", f"{len(array)} items, the limit is {limits.items}; send several requests")
    return list(_whole(array).reshape(len(array), *spec.shape))


def _matches(shape: tuple[int, ...], spec: ImageInput) -> bool:
    return shape == spec.shape or (spec.channels == 1 and shape == spec.shape[:2])


def _wrong_shape(shape: tuple[int, ...], spec: ImageInput, batch: str = "") -> InputError:
    got = ", ".join(map(str, shape))
    expected = ", ".join([*batch, *map(str, spec.shape)])
    axes = ", ".join([*batch, "height", "width", "channels"])
    return InputError("wrong_shape", f"shape ({got}), the model takes ({expected}) as ({axes}); resize, or send a file")


def _pixels(array: Array) -> Array:
    if array.dtype != np.uint8:
        raise InputError("wrong_dtype", f"dtype {array.dtype}, the model takes uint8 pixels 0..255; convert the array")
    return array


def _whole(array: Array) -> Array:
    if not (np.isfinite(array).all() and (array >= 0).all() and (array <= 255).all() and (array % 1 == 0).all()):
        raise InputError("wrong_dtype", "pixels are whole numbers 0..255; multiply values in 0..1 by 255 and round")
    return array.astype(np.uint8)
