"""Independent binary pixels: for characters and other images that are nearly black and white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from isolatent_train.codecs import Modality


@dataclass(frozen=True)
class Bernoulli:
    """Independent binary pixels, grey levels being their probabilities; the decoder puts out logits.

    dynamic: binary pixels are drawn for each update, encoded and reconstructed. Otherwise the grey image is encoded and
    the expectation over its binary pixels is reconstructed, which is the cross-entropy with its grey levels.
    """

    modality: ClassVar[Modality] = "image"
    is_density: ClassVar[bool] = True

    dynamic: bool

    @property
    def description(self) -> str:
        """One line for model cards."""
        return "Bernoulli, dynamic binarisation" if self.dynamic else "Bernoulli, expected over binarisations"

    def channels(self, image_channels: int) -> int:
        """One logit per pixel and channel."""
        return image_channels

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
