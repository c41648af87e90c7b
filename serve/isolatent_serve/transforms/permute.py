"""Random exchange of the axes of point clouds."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Permute(BaseModel):
    """Members and draws as in isolatent_train.transforms.permute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["permute"] = "permute"
    probability: float = Field(default=1.0, ge=0, le=1)

    def __call__(self, points: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Points (N, P, 3) -> the same shape."""
        order = generator.permutation(3)
        return self.apply(points, order=order if generator.random() < self.probability else np.arange(3))

    @staticmethod
    def apply(points: NDArray[Any], *, order: NDArray[Any]) -> NDArray[Any]:
        """Points (N, P, 3) with coordinate `order[k]`, of (3,), in place k."""
        return points[:, :, order]
