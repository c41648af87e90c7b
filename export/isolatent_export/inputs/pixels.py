"""Images given as arrays or numbers: uint8 pixels (H, W) or (H, W, C), one or a batch. Files are images.py's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.inputs.images import decode
from isolatent_export.inputs.npy import parse
from isolatent_export.manifest import ImageInput

__all__ = ["convert", "decode", "from_numbers", "is_item", "parse", "wrong_shape"]

Array = NDArray[Any]


def is_item(shape: tuple[int, ...], spec: ImageInput) -> bool:
    """Whether an array of this shape is one image; grey ones may leave out the channel."""
    return shape == spec.shape or (spec.channels == 1 and shape == spec.shape[:2])


def wrong_shape(shape: tuple[int, ...], spec: ImageInput, batch: str) -> InputError:
    """What to say of an array of another shape; `batch` is the letter of the batch axis, or empty."""
    got = ", ".join(map(str, shape))
    expected = ", ".join([*batch, *map(str, spec.shape)])
    axes = ", ".join([*batch, "height", "width", "channels"])
    return InputError("wrong_shape", f"shape ({got}), the model takes ({expected}) as ({axes}); resize, or send a file")


def convert(items: Array, spec: ImageInput, limits: Limits) -> Array:  # noqa: ARG001 - the shape is already the spec's
    """Items (N, H, W[, C]) uint8 as (N, H, W, C). Raises InputError on another dtype."""
    if items.dtype != np.uint8:
        raise InputError("wrong_dtype", f"dtype {items.dtype}, the model takes uint8 pixels 0..255; convert the array")
    return np.ascontiguousarray(items.reshape(len(items), *spec.shape))


def from_numbers(numbers: Array) -> Array:
    """Numbers of JSON as pixels. Raises InputError unless all are whole and in 0..255."""
    whole = np.isfinite(numbers).all() and (numbers >= 0).all() and (numbers <= 255).all() and (numbers % 1 == 0).all()
    if not whole:
        raise InputError("wrong_dtype", "pixels are whole numbers 0..255; multiply values in 0..1 by 255 and round")
    return numbers.astype(np.uint8)
