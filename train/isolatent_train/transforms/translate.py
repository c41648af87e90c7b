"""Random translation of point clouds."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Translate(BaseModel):
    """Each cloud is moved along each axis by U(-distance, distance)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "point_cloud"

    kind: Literal["translate"] = "translate"
    distance: float = Field(default=0.2, ge=0)
    """In units of the points: with unit_sphere normalisation, of the cloud's radius."""

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Points (B, P, 3) -> the same shape."""
        draws = torch.rand(len(points), 3, generator=generator, device=points.device) * 2 - 1
        return self.apply(points, shift=draws * self.distance)

    @staticmethod
    def apply(points: Tensor, *, shift: Tensor) -> Tensor:
        """Move points (B, P, 3) by `shift` (B, 3)."""
        return points + shift[:, None, :]
