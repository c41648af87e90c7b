"""Random mirroring of point clouds: for frames whose axes have arbitrary signs, such as principal axes."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Mirror(BaseModel):
    """Each of `axes` of each cloud changes its sign with a probability of one half, or `probability`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "point_cloud"

    kind: Literal["mirror"] = "mirror"
    axes: tuple[Literal["x", "y", "z"], ...] = ("x", "y", "z")
    """Axes that may be mirrored, each on its own."""
    probability: float = Field(default=0.5, ge=0, le=1)

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Points (B, P, 3) -> the same shape."""
        chosen = torch.rand(len(points), 3, generator=generator, device=points.device) < self.probability
        allowed = torch.tensor([name in self.axes for name in "xyz"], device=points.device)
        return self.apply(points, signs=1 - 2 * (chosen & allowed).to(points.dtype))

    @staticmethod
    def apply(points: Tensor, *, signs: Tensor) -> Tensor:
        """Multiply points (B, P, 3) by `signs` (B, 3), 1 or -1 per axis."""
        return points * signs[:, None, :]
