"""Noise on every point of a cloud: what a scanner's range error does."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Jitter(BaseModel):
    """Each coordinate of each point gets normal noise of its own, cut at ± clip."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "point_cloud"

    kind: Literal["jitter"] = "jitter"
    sigma: float = Field(default=0.01, ge=0)
    """Standard deviation, in units of the points: with unit_sphere normalisation, of the cloud's radius."""
    clip: float = Field(default=0.02, gt=0)
    """Largest change of a coordinate, in the same units."""

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Points (B, P, 3) -> the same shape."""
        return self.apply(points, generator, sigma=self.sigma, clip=self.clip)

    @staticmethod
    def apply(points: Tensor, generator: torch.Generator, *, sigma: float, clip: float) -> Tensor:
        """Add noise of standard deviation `sigma`, cut at ± `clip`, to points (B, P, 3)."""
        noise = torch.randn(points.shape, generator=generator, device=points.device, dtype=points.dtype) * sigma
        return points + noise.clamp(-clip, clip)
