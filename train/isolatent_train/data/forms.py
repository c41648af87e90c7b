"""What the inputs of a modality are: their arrays, their specification, and how they come to fit it.

A new modality is one more form here and one line in `FORMS`. Everything else about data knows inputs, not pixels.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from pydantic import ValidationError
from torch import Tensor
from tqdm import tqdm

from isolatent_export.inputs import InputError, Limits, decode_arrays, decode_item
from isolatent_export.manifest import ImageInput, InputSpec, PointCloudInput
from isolatent_train.config import DataSection
from isolatent_train.data.splits import DataError

Array = NDArray[Any]

_AT_A_TIME = 1024


class Form(Protocol):
    """The inputs of one modality."""

    noun: str
    """What one is called; its plural ends in s."""
    smaller: str
    """The setting that makes one smaller."""
    dtype: DTypeLike
    """Of one when it is decoded."""

    def checked(self, inputs: Array, what: str) -> Array:
        """Inputs (N, ...) as a source stores them, in the layout of this form. Raises DataError naming `what`."""

    def spec(self, section: DataSection, shape: tuple[int, ...]) -> InputSpec:
        """What one input becomes by the section, or by its own `shape` where that says nothing. Raises DataError."""

    def conform(self, inputs: Tensor, spec: Any) -> Tensor:
        """Inputs (N, ...), checked, as the specification wants them."""


class Images:
    """Pixels (N, H, W, 1 or 3) uint8."""

    noun, smaller = "image", "data.size"
    dtype: DTypeLike = np.uint8

    def checked(self, inputs: Array, what: str) -> Array:
        """Pixels (N, H, W) or (N, H, W, 1 or 3) -> (N, H, W, C)."""
        pixels = inputs[..., None] if inputs.ndim == 3 else inputs
        if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape[1:]:
            raise DataError(f"{what}: images of shape {pixels.shape}; store (N, H, W), (N, H, W, 1) or (N, H, W, 3)")
        if pixels.dtype != np.uint8:
            raise DataError(f"{what}: images of dtype {pixels.dtype}; store uint8 pixels 0..255")
        return pixels

    def spec(self, section: DataSection, shape: tuple[int, ...]) -> ImageInput:
        """The section's size and channels, or those of `shape` (H, W, C)."""
        height, width = section.size or shape[:2]
        values: dict[str, Any] = {"height": height, "width": width, "channels": section.channels or shape[2]}
        try:
            return ImageInput(**values, resize=section.resize, fill=section.fill)
        except ValidationError:
            raise DataError(
                f"data {section.spec!r}: inputs of {height} x {width} are not possible; set data.size to 1..4096"
            ) from None

    def conform(self, inputs: Tensor, spec: ImageInput) -> Tensor:
        """Pixels with the size and channels of `spec`; the same tensor when they have them."""
        if inputs.shape[1:] == spec.shape:
            return inputs
        _, height, width, channels = inputs.shape
        header = f"P{5 if channels == 1 else 6} {width} {height} 255\n".encode()  # PGM or PPM: pixels as they are
        limits = Limits(item_bytes=len(header) + height * width * channels, pixels=height * width)
        out = torch.empty((len(inputs), *spec.shape), dtype=torch.uint8)
        bar = tqdm(inputs.numpy(), unit="image", desc="resizing", disable=None, file=sys.stderr)
        for index, image in enumerate(bar):
            out[index] = torch.from_numpy(decode_item(header + image.tobytes(), spec, limits).copy())
        return out


class Clouds:
    """Points (N, M, 3) of any number M as a source stores them, (N, P, 3) float32 sampled and normalised in the end."""

    noun, smaller = "cloud", "data.points"
    dtype: DTypeLike = np.float32

    def checked(self, inputs: Array, what: str) -> Array:
        """Points (N, M, 3 or more): columns after the third, such as normals, are left out."""
        if inputs.ndim != 3 or inputs.shape[1] < 2 or inputs.shape[2] < 3:
            raise DataError(f"{what}: point clouds of shape {inputs.shape}; store (N, M, 3) with M of 2 or more points")
        if inputs.dtype.kind != "f":
            raise DataError(f"{what}: points of dtype {inputs.dtype}; store float32")
        points = inputs[..., :3]
        _refuse(~np.isfinite(np.abs(points).max(axis=(1, 2))), what, "has coordinates that are not finite")
        _refuse(np.ptp(points, axis=1).max(axis=1) == 0, what, "has all its points in one place")
        return points

    def spec(self, section: DataSection, shape: tuple[int, ...]) -> PointCloudInput:  # noqa: ARG002
        """The section's points, normalization and sampling."""
        return PointCloudInput(points=section.points, normalization=section.normalization, sampling=section.sampling)

    def conform(self, inputs: Tensor, spec: PointCloudInput) -> Tensor:
        """Points sampled and normalised as a service would, some clouds at a time to spare memory."""
        limits = Limits(items=_AT_A_TIME, points=inputs.shape[1])
        try:
            parts = [decode_arrays(part.numpy(), spec, limits) for part in inputs.split(_AT_A_TIME)]
        except InputError as error:
            raise DataError(f"a cloud cannot be used: {error}") from None
        return torch.from_numpy(np.concatenate(parts))


FORMS: dict[str, Form] = {"image": Images(), "point_cloud": Clouds()}
"""Forms by modality."""

IMAGES, CLOUDS = FORMS["image"], FORMS["point_cloud"]


def form_of(inputs: Tensor) -> Form:
    """The form of inputs that were checked: whole numbers are pixels, others coordinates."""
    return CLOUDS if inputs.is_floating_point() else IMAGES


def _refuse(broken: Array, what: str, reason: str) -> None:
    if broken.any():
        others = f", as have {broken.sum() - 1} others" if broken.sum() > 1 else ""
        raise DataError(f"{what}: cloud {int(broken.argmax())} {reason}{others}; remove them")
