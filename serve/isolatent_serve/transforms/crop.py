"""Random resized crop: a part of the picture fills the frame."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from isolatent_serve.transforms.sampling import resample


class Crop(BaseModel):
    """Members and draws as in isolatent_train.transforms.crop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["crop"] = "crop"
    area: float = Field(default=0.6, gt=0, le=1)
    stretch: float = Field(default=1.2, ge=1, le=4)

    def __call__(self, images: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Images (N, H, W, C) -> the same shape."""
        return self.apply(images, draws=generator.random(4))

    def apply(self, images: NDArray[Any], *, draws: NDArray[Any]) -> NDArray[Any]:
        """Cut out the box that `draws` (4,) in 0..1 choose: its area, stretch, and place from left and top."""
        area = self.area + (1 - self.area) * draws[0]
        ratio = math.exp((2 * draws[1] - 1) * math.log(self.stretch))
        size = np.sqrt([area * ratio, area / ratio]).clip(max=1)  # width, height
        return resample(images, np.diag(size), (1 - size) * (2 * draws[2:] - 1), "edge")
