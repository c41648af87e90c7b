"""Random rotation of point clouds, about one axis or any."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

_TABLE = 4096


class Rotate(BaseModel):
    """Each cloud turned about the origin by an angle of its own.

    About x, y or z the angle is uniform. About any axis all rotations by at most `degrees` are equally likely; at 180,
    all orientations are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "point_cloud"

    kind: Literal["rotate"] = "rotate"
    degrees: float = Field(default=180.0, ge=0, le=180)
    """Largest angle; x, y, z: drawn from U(-degrees, degrees)."""
    axis: Literal["x", "y", "z", "any"] = "z"
    """z is up in most data; some has y up."""

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Points (B, P, 3) -> the same shape."""
        count, device, largest = len(points), points.device, math.radians(self.degrees)
        draws = torch.rand(count, generator=generator, device=device)
        if self.axis == "any":
            axis = torch.randn(count, 3, generator=generator, device=device)
            return self.apply(points, axis=axis, angle=_uniform_angles(draws, largest))
        axis = torch.tensor([[float(self.axis == name) for name in "xyz"]], device=device).expand(count, 3)
        return self.apply(points, axis=axis, angle=(2 * draws - 1) * largest)

    @staticmethod
    def apply(points: Tensor, *, axis: Tensor, angle: Tensor) -> Tensor:
        """Turn points (B, P, 3) by `angle` (B,) radians, counter-clockwise seen from the tip of `axis` (B, 3)."""
        x, y, z = torch.nn.functional.normalize(axis, dim=1).T
        zero, sin, cos = torch.zeros_like(x), angle.sin(), angle.cos()
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)  # (B, 3, 3): v -> axis × v
        identity = torch.eye(3, device=points.device)
        matrix = identity + sin[:, None, None] * cross + (1 - cos)[:, None, None] * (cross @ cross)  # Rodrigues
        return points @ matrix.transpose(1, 2).to(points.dtype)


def _uniform_angles(draws: Tensor, largest: float) -> Tensor:
    """Angles of rotations drawn uniformly among those by at most `largest` radians, from draws (B,) in 0..1.

    Their density is proportional to 1 - cos(angle); its integral, angle - sin(angle), is inverted by a table.
    """
    angles = torch.linspace(0, largest, _TABLE, dtype=torch.float64, device=draws.device)
    shares = angles - angles.sin()
    wanted = draws.double() * shares[-1]
    right = torch.searchsorted(shares, wanted).clamp(1, _TABLE - 1)
    low, high = shares[right - 1], shares[right]
    within = ((wanted - low) / (high - low).clamp(min=torch.finfo(torch.float64).tiny)).clamp(0, 1)
    return torch.lerp(angles[right - 1], angles[right], within).to(draws.dtype)
