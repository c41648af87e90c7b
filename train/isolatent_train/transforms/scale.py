"""Random scaling of point clouds."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Scale(BaseModel):
    """Distances from the origin are multiplied by a factor U(low, high) per cloud, or by one per axis of each cloud.

    low = high = 1 leaves it out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "point_cloud"

    kind: Literal["scale"] = "scale"
    low: float = Field(default=2 / 3, gt=0, le=1)
    high: float = Field(default=3 / 2, ge=1, le=100)
    per_axis: bool = False
    """Stretch x, y and z by factors of their own: proportions change, angles too."""

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Points (B, P, 3) -> the same shape."""
        draws = torch.rand(len(points), 3 if self.per_axis else 1, generator=generator, device=points.device)
        return self.apply(points, factor=(self.low + (self.high - self.low) * draws).expand(-1, 3))

    @staticmethod
    def apply(points: Tensor, *, factor: Tensor) -> Tensor:
        """Multiply points (B, P, 3) by `factor` (B, 3), one per axis."""
        return points * factor[:, None, :]
