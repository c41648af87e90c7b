"""Random scaling of point clouds."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Scale(BaseModel):
    """Members and draws as in isolatent_train.transforms.scale."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["scale"] = "scale"
    low: float = Field(default=2 / 3, gt=0, le=1)
    high: float = Field(default=3 / 2, ge=1, le=100)
    per_axis: bool = False

    def __call__(self, points: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Points (N, P, 3) -> the same shape."""
        return self.apply(points, factor=generator.uniform(self.low, self.high, 3 if self.per_axis else 1))

    @staticmethod
    def apply(points: NDArray[Any], *, factor: NDArray[Any]) -> NDArray[Any]:
        """Multiply points (N, P, 3) by `factor`, (3,) or (1,)."""
        return np.asarray(points * factor.astype(points.dtype))
