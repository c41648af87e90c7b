"""Random rotation, translation and scale as one affine resampling: the paper's transformation of images."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

_PADDING = {"zeros": "zeros", "edge": "border", "reflect": "reflection"}


class Affine(BaseModel):
    """Rotation, translation and scale drawn uniformly per image, composed, and applied with bilinear sampling.

    The defaults are the paper's for 28 x 28 images. A strength of 0 (scale: 0) leaves that part out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "image"

    kind: Literal["affine"] = "affine"
    rotation: float = Field(default=15.0, ge=0, le=180)
    """Degrees; the angle is drawn from U(-rotation, rotation)."""
    translation: float = Field(default=0.07, ge=0, le=1)
    """Fraction of the side; each axis is shifted by U(-translation, translation) of it."""
    scale: float = Field(default=0.1, ge=0, lt=1)
    """The size is multiplied by U(1 - scale, 1 + scale)."""
    padding: Literal["zeros", "edge", "reflect"] = "zeros"
    """What comes in from outside the frame: zeros for characters, edge or reflect for photographs."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) -> transformed images of the same shape."""
        draws = torch.rand(4, len(images), generator=generator, device=images.device) * 2 - 1  # (4, B) in -1..1
        return self.apply(
            images,
            angle=draws[0] * math.radians(self.rotation),
            shift=draws[1:3].T * self.translation,
            scale=1 + draws[3] * self.scale,
        )

    def apply(self, images: Tensor, *, angle: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Turn counter-clockwise by `angle` (B,) radians, grow by `scale` (B,), move by `shift` (B, 2).

        Shift is (right, down) in fractions of width and height. Shape in and out: (B, C, H, W).
        """
        height, width = images.shape[2:]
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        # affine_grid maps output to input positions in -1..1 per axis: the inverse map, with the aspect ratio undone.
        linear = torch.stack([cos, -sin * height / width, sin * width / height, cos], dim=1).view(-1, 2, 2)
        offset = -(linear @ (2 * shift).unsqueeze(2))  # (B, 2, 1): shift is applied last, so undone first
        grid = functional.affine_grid(torch.cat([linear, offset], 2), list(images.shape), align_corners=False)
        mode = _PADDING[self.padding]
        return functional.grid_sample(images, grid.to(images.dtype), padding_mode=mode, align_corners=False)
