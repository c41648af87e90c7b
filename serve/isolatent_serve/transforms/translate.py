"""Random translation of point clouds."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Translate(BaseModel):
    """Members and draws as in isolatent_train.transforms.translate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["translate"] = "translate"
    distance: float = Field(default=0.2, ge=0)

    def __call__(self, points: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Points (N, P, 3) -> the same shape."""
        return self.apply(points, shift=generator.uniform(-1, 1, 3) * self.distance)

    @staticmethod
    def apply(points: NDArray[Any], *, shift: NDArray[Any]) -> NDArray[Any]:
        """Move points (N, P, 3) by `shift` (3,)."""
        return np.asarray(points + shift.astype(points.dtype))
