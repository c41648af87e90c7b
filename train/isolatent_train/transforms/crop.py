"""Random resized crop: a part of the picture fills the frame."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional


class Crop(BaseModel):
    """A box with a share U(area, 1) of the picture and an aspect ratio changed by up to `stretch` fills the frame.

    The box lies anywhere inside the picture; bilinear sampling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "image"

    kind: Literal["crop"] = "crop"
    area: float = Field(default=0.6, gt=0, le=1)
    stretch: float = Field(default=1.2, ge=1, le=4)
    """The aspect ratio is multiplied by a factor drawn log-uniformly from 1 / stretch to stretch."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) -> the same shape."""
        draws = torch.rand(4, len(images), generator=generator, device=images.device)  # (4, B) in 0..1
        area = self.area + (1 - self.area) * draws[0]
        ratio = torch.exp((2 * draws[1] - 1) * math.log(self.stretch))
        width, height = ((area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1))
        x, y = (1 - width) * (2 * draws[2] - 1), (1 - height) * (2 * draws[3] - 1)  # centre of the box in -1..1
        zero = torch.zeros_like(x)
        theta = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)  # (B, 2, 3)
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
