"""Noise on every point of a cloud."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Jitter(BaseModel):
    """Members and draws as in isolatent_train.transforms.jitter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["jitter"] = "jitter"
    sigma: float = Field(default=0.01, ge=0)
    clip: float = Field(default=0.02, gt=0)

    def __call__(self, points: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Points (N, P, 3) -> the same shape."""
        return self.apply(points, noise=generator.standard_normal(points.shape[1:]))

    def apply(self, points: NDArray[Any], *, noise: NDArray[Any]) -> NDArray[Any]:
        """Add `noise` (P, 3) of standard deviation 1, scaled and cut, to points (N, P, 3)."""
        cut = (noise * self.sigma).clip(-self.clip, self.clip)
        return np.asarray(points + cut.astype(points.dtype))
