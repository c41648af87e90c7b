"""Random mirroring of images, left to right."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Flip(BaseModel):
    """Members and draws as in isolatent_train.transforms.flip."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["flip"] = "flip"
    probability: float = Field(default=0.5, ge=0, le=1)

    def __call__(self, images: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Images (N, H, W, C) -> the same shape."""
        return images[:, :, ::-1] if generator.random() < self.probability else images
