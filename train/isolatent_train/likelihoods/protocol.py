"""p(x|z): what every likelihood must be able to do."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from isolatent_train.codecs import Modality


class Likelihood(Protocol):
    """How inputs become targets, how probable targets are, and what the decoder's output looks like.

    Shapes are those of images; point clouds have (B, P, 3) in place of (B, C, H, W).
    """

    modality: ClassVar[Modality]
    is_density: ClassVar[bool]
    """Whether exp(log_prob) is normalised, so that a likelihood may be reported."""

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
