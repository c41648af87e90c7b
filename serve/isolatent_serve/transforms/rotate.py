"""Random rotation of point clouds, about one axis or any."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

_TABLE = 4096


class Rotate(BaseModel):
    """Members and draws as in isolatent_train.transforms.rotate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["rotate"] = "rotate"
    degrees: float = Field(default=180.0, ge=0, le=180)
    axis: Literal["x", "y", "z", "any"] = "z"

    def __call__(self, points: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Points (N, P, 3) -> the same shape."""
        largest = math.radians(self.degrees)
        if self.axis == "any":
            return self.apply(points, axis=generator.normal(size=3), angle=_angle(generator.random(), largest))
        axis = np.array([float(self.axis == name) for name in "xyz"])
        return self.apply(points, axis=axis, angle=generator.uniform(-largest, largest))

    @staticmethod
    def apply(points: NDArray[Any], *, axis: NDArray[Any], angle: float) -> NDArray[Any]:
        """Turn points (N, P, 3) by `angle` radians, counter-clockwise seen from the tip of `axis` (3,)."""
        x, y, z = axis / np.linalg.norm(axis)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])  # v -> axis × v
        matrix = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)  # Rodrigues
        return np.asarray(points @ matrix.T.astype(points.dtype))


def _angle(draw: float, largest: float) -> float:
    """The angle of a rotation drawn uniformly among those by at most `largest` radians, from a draw in 0..1.

    Its density is proportional to 1 - cos(angle); the integral, angle - sin(angle), is inverted by a table.
    """
    angles = np.linspace(0, largest, _TABLE)
    shares = angles - np.sin(angles)
    return float(np.interp(draw * shares[-1], shares, angles))
