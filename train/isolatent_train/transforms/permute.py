"""Random exchange of axes of point clouds: for principal axes, whose order depends on little where two are alike."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Permute(BaseModel):
    """The axes x, y and z of a cloud change places at random; each of the six orders is as likely."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "point_cloud"

    kind: Literal["permute"] = "permute"
    probability: float = Field(default=1.0, ge=0, le=1)
    """Share of the clouds to which that happens; the others stay as they are."""

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Points (B, P, 3) -> the same shape."""
        count, device = len(points), points.device
        order = torch.rand(count, 3, generator=generator, device=device).argsort(dim=1)
        chosen = torch.rand(count, 1, generator=generator, device=device) < self.probability
        return self.apply(points, order=torch.where(chosen, order, torch.arange(3, device=device)))

    @staticmethod
    def apply(points: Tensor, *, order: Tensor) -> Tensor:
        """Points (B, P, 3) with coordinate `order[b, k]`, of (B, 3), in place k."""
        return points.gather(2, order[:, None, :].expand_as(points))
