"""p(x|z) of pixels given what the decoder puts out.

A new likelihood is one more class here and one line in `build_likelihood`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from isolatent_train.config import LikelihoodSection


class Likelihood(Protocol):
    """How images become targets, how probable targets are, and what the decoder's output looks like."""

    @property
    def description(self) -> str:
        """One line for model cards."""

    def targets(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) in 0..1 -> what training encodes and reconstructs."""

    def observe(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images -> data in the likelihood's own space, which a test likelihood is computed of."""

    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Decoder outputs (K, B, C, H, W) and targets (B, C, H, W) -> log p(x|z) in nats (K, B), summed over pixels."""

    def mean(self, outputs: Tensor) -> Tensor:
        """Decoder outputs -> expected pixels in 0..1, same shape."""


@dataclass(frozen=True)
class Bernoulli:
    """Independent binary pixels, grey levels being their probabilities; the decoder puts out logits.

    dynamic: binary pixels are drawn for each update, encoded and reconstructed. Otherwise the grey image is encoded and
    the expectation over its binary pixels is reconstructed, which is the cross-entropy with its grey levels.
    """

    dynamic: bool

    @property
    def description(self) -> str:
        """One line for model cards."""
        return "Bernoulli, dynamic binarisation" if self.dynamic else "Bernoulli, expected over binarisations"

    def targets(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Binary pixels, or the grey levels themselves."""
        return self.observe(images, generator) if self.dynamic else images

    def observe(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Binary pixels drawn with the grey levels as probabilities."""
        return torch.bernoulli(images.clamp(0, 1), generator=generator)  # interpolation may overshoot by rounding

    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum over pixels of x log p + (1 - x) log(1 - p) with p = sigmoid(logit)."""
        targets = targets.expand_as(outputs)
        return -functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").flatten(2).sum(2)

    def mean(self, outputs: Tensor) -> Tensor:
        """Pixel probabilities."""
        return outputs.sigmoid()


def build_likelihood(section: LikelihoodSection) -> Likelihood:
    """The likelihood that a configuration names."""
    return Bernoulli(dynamic=section.binarize == "dynamic")
