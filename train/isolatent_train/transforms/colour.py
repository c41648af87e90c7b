"""Random brightness, contrast, saturation and hue."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

# Luma weights of ITU-R BT.601, and the chroma axes of YIQ in which a change of hue is a rotation.
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


class ColourJitter(BaseModel):
    """Each factor drawn uniformly per image from 1 - strength to 1 + strength, hue from -hue to hue turns.

    Grey images take brightness and contrast only. The result is clamped to 0..1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "image"

    kind: Literal["colour_jitter"] = "colour_jitter"
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)
    saturation: float = Field(default=0.2, ge=0, le=1)
    hue: float = Field(default=0.05, ge=0, le=0.5)
    """Fraction of a full turn."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) -> the same shape."""
        draws = torch.rand(4, len(images), 1, 1, 1, generator=generator, device=images.device) * 2 - 1
        images = images * (1 + self.brightness * draws[0])
        if images.shape[1] == 3:
            images = self._recolour(images, 1 + self.saturation * draws[2], 2 * math.pi * self.hue * draws[3])
        middle = images.mean((1, 2, 3), keepdim=True)
        return (middle + (images - middle) * (1 + self.contrast * draws[1])).clamp(0, 1)

    @staticmethod
    def _recolour(images: Tensor, saturation: Tensor, angle: Tensor) -> Tensor:
        to_yiq = torch.tensor(_TO_YIQ, device=images.device, dtype=images.dtype)
        luma, i, q = torch.einsum("kc,bchw->kbhw", to_yiq, images)  # (B, H, W) each
        factor, turn = saturation[:, 0], angle[:, 0]  # (B, 1, 1)
        turned = [luma, factor * (i * turn.cos() - q * turn.sin()), factor * (i * turn.sin() + q * turn.cos())]
        return torch.einsum("ck,kbhw->bchw", torch.linalg.inv(to_yiq), torch.stack(turned))
