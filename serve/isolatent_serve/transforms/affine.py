"""Rotation, translation and scale of images as one affine resampling."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from isolatent_serve.transforms.sampling import Padding, resample


class Affine(BaseModel):
    """Members and draws as in isolatent_train.transforms.affine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["affine"] = "affine"
    rotation: float = Field(default=15.0, ge=0, le=180)
    translation: float = Field(default=0.07, ge=0, le=1)
    scale: float = Field(default=0.1, ge=0, lt=1)
    padding: Padding = "zeros"

    def __call__(self, images: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Images (N, H, W, C) -> the same shape."""
        angle, right, down, scale = generator.uniform(-1, 1, 4)
        shift = self.translation * right, self.translation * down
        return self.apply(images, angle=math.radians(self.rotation) * angle, shift=shift, scale=1 + self.scale * scale)

    def apply(self, images: NDArray[Any], *, angle: float, shift: tuple[float, float], scale: float) -> NDArray[Any]:
        """Turn counter-clockwise by `angle` radians, grow by `scale`, move by `shift`, (right, down) in frames."""
        height, width = images.shape[1:3]
        cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
        linear = np.array([[cos, -sin * height / width], [sin * width / height, cos]])  # from output to input
        return resample(images, linear, -linear @ (2 * np.array(shift)), self.padding)
