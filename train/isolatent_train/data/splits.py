"""What every data source delivers: pixels and labels, split once and for all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isolatent_export.manifest import ImageInput


class DataError(ValueError):
    """Data that cannot be used; the message names the remedy."""


@dataclass(frozen=True)
class Labelled:
    """Pixels (N, H, W, C) uint8 and labels (N,) int64."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: slice | Tensor) -> Labelled:
        return Labelled(self.pixels[index], self.labels[index])

    def to(self, device: torch.device) -> Labelled:
        """The same on a device."""
        return Labelled(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Splits:
    """Disjoint train, validation and test parts, and what one input is."""

    spec: ImageInput
    train: Labelled
    validation: Labelled
    test: Labelled

    def counts(self) -> dict[str, int]:
        """Examples per split."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}
