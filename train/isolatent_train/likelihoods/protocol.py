"""p(x|z) of pixels: what every likelihood must be able to do."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Likelihood(Protocol):
    """How images become targets, how probable targets are, and what the decoder's output looks like."""

    @property
    def description(self) -> str:
        """One line for model cards."""

    def channels(self, image_channels: int) -> int:
        """Channels of the decoder's output for images with `image_channels`."""

    def targets(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) in 0..1 -> what training encodes and reconstructs."""

    def observe(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images -> data in the likelihood's own space, which a test likelihood is computed of."""

    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Decoder outputs (K, B, C, H, W) and targets (B, C, H, W) -> log p(x|z) in nats (K, B), summed over pixels."""

    def mean(self, outputs: Tensor) -> Tensor:
        """Decoder outputs -> expected pixels in 0..1, same shape."""
