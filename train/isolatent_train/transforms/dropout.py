"""Points of a cloud that get lost: anywhere, or all on one side."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Dropout(BaseModel):
    """A share U(0, fraction) of each cloud's points is dropped at random.

    Copies of kept points take their places, so that the number of points stays.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "point_cloud"

    kind: Literal["dropout"] = "dropout"
    fraction: float = Field(default=0.5, ge=0, lt=1)
    """Largest share of the points that is dropped."""

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Points (B, P, 3) -> the same shape."""
        draws = torch.rand(len(points), generator=generator, device=points.device)
        return self.apply(points, generator, fraction=draws * self.fraction)

    @staticmethod
    def apply(points: Tensor, generator: torch.Generator, *, fraction: Tensor) -> Tensor:
        """Drop a share of exactly `fraction` (B,) of points (B, P, 3), rounded down to whole points."""
        scores = torch.rand(points.shape[:2], generator=generator, device=points.device)
        return _replace_last(points, scores, fraction, generator)


class Occlude(BaseModel):
    """All points beyond a plane of random direction are dropped, a share U(0, fraction) of each cloud.

    What stands between a scanner and a side of the object does so. Copies of kept points take their places.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "point_cloud"

    kind: Literal["occlude"] = "occlude"
    fraction: float = Field(default=0.3, ge=0, lt=1)
    """Largest share of the points that is dropped."""

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Points (B, P, 3) -> the same shape."""
        draws = torch.rand(len(points), generator=generator, device=points.device)
        direction = torch.randn(len(points), 3, generator=generator, device=points.device)
        return self.apply(points, generator, fraction=draws * self.fraction, direction=direction)

    @staticmethod
    def apply(points: Tensor, generator: torch.Generator, *, fraction: Tensor, direction: Tensor) -> Tensor:
        """Drop the share `fraction` (B,) of points (B, P, 3) that lies farthest along `direction` (B, 3)."""
        return _replace_last(points, (points * direction[:, None, :]).sum(2), fraction, generator)


def _replace_last(points: Tensor, scores: Tensor, fraction: Tensor, generator: torch.Generator) -> Tensor:
    """Points (B, P, 3) with those of the highest scores (B, P), a share `fraction` (B,), replaced by drawn others."""
    count = points.shape[1]
    kept = (count - (fraction * count).floor().long().clamp(max=count - 1))[:, None]  # (B, 1), at least 1 each
    order = scores.argsort(dim=1)  # (B, P), kept ones first
    rank = torch.arange(count, device=points.device)
    draws = torch.rand(scores.shape, generator=generator, device=points.device)
    place = torch.where(rank < kept, rank, (draws * kept).long().minimum(kept - 1))  # (B, P) places in `order`
    source = torch.empty_like(order).scatter_(1, order, order.gather(1, place))  # (B, P): kept points stay in place
    return points.gather(1, source[:, :, None].expand(-1, -1, 3))
