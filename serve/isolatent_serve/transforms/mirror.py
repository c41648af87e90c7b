"""Random mirroring of point clouds."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Mirror(BaseModel):
    """Members and draws as in isolatent_train.transforms.mirror."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["mirror"] = "mirror"
    axes: tuple[Literal["x", "y", "z"], ...] = ("x", "y", "z")
    probability: float = Field(default=0.5, ge=0, le=1)

    def __call__(self, points: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Points (N, P, 3) -> the same shape."""
        chosen = generator.random(3) < self.probability
        allowed = np.array([name in self.axes for name in "xyz"])
        return self.apply(points, signs=1 - 2.0 * (chosen & allowed))

    @staticmethod
    def apply(points: NDArray[Any], *, signs: NDArray[Any]) -> NDArray[Any]:
        """Multiply points (N, P, 3) by `signs` (3,), 1 or -1 per axis."""
        return np.asarray(points * signs.astype(points.dtype))
