"""Random brightness, contrast, saturation and hue of images."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

# Luma weights of ITU-R BT.601, and the chroma axes of YIQ in which a change of hue is a rotation.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class ColourJitter(BaseModel):
    """Members and draws as in isolatent_train.transforms.colour."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["colour_jitter"] = "colour_jitter"
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)
    saturation: float = Field(default=0.2, ge=0, le=1)
    hue: float = Field(default=0.05, ge=0, le=0.5)

    def __call__(self, images: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Images (N, H, W, C) -> the same shape."""
        return self.apply(images, draws=generator.uniform(-1, 1, 4))

    def apply(self, images: NDArray[Any], *, draws: NDArray[Any]) -> NDArray[Any]:
        """Change brightness, contrast, saturation and hue by the shares `draws` (4,) in -1..1 of their strengths."""
        images = images * np.float32(1 + self.brightness * draws[0])
        if images.shape[3] == 3:
            images = images @ _recolouring(1 + self.saturation * draws[2], 2 * math.pi * self.hue * draws[3]).T
        middle = images.mean((1, 2, 3), keepdims=True)
        changed: NDArray[Any] = middle + (images - middle) * np.float32(1 + self.contrast * draws[1])
        return changed.clip(0, 1)


def _recolouring(saturation: float, angle: float) -> NDArray[np.float32]:
    """The matrix (3, 3) that maps a colour to its saturated and turned one."""
    cos, sin = saturation * math.cos(angle), saturation * math.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return np.asarray(np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ, np.float32)
