"""Random mirroring left to right: for photographs, never for characters."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Flip(BaseModel):
    """Each image is mirrored with a probability of its own draw."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: ClassVar[str] = "image"

    kind: Literal["flip"] = "flip"
    probability: float = Field(default=0.5, ge=0, le=1)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) -> the same shape."""
        chosen = torch.rand(len(images), generator=generator, device=images.device) < self.probability
        return torch.where(chosen[:, None, None, None], images.flip(3), images)
