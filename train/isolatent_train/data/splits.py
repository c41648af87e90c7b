"""What every data source delivers: inputs and labels, split once and for all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from isolatent_export.manifest import InputSpec


class DataError(ValueError):
    """Data that cannot be used; the message names the remedy."""


@dataclass(frozen=True)
class Labelled:
    """Pixels (N, H, W, C) uint8 or points (N, P, 3) float32; labels (N,) int64 from 0, where the source has them."""

    inputs: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: slice | Tensor) -> Labelled:
        return Labelled(self.inputs[index], None if self.labels is None else self.labels[index])

    def to(self, device: torch.device) -> Labelled:
        """The same on a device."""
        return Labelled(self.inputs.to(device), None if self.labels is None else self.labels.to(device))


@dataclass(frozen=True)
class Rejected:
    """An item that was left out, and why. Neither text holds a tab or a line break."""

    path: str
    """Of a file, relative to the folder that was read; of a row, SPLIT[INDEX]."""
    reason: str


@dataclass(frozen=True)
class Splits:
    """Disjoint train, validation and test parts, and what one input is."""

    spec: InputSpec
    train: Labelled
    validation: Labelled
    test: Labelled
    classes: tuple[str, ...] | None = None
    """Names of the labels, where the source has any."""
    rejected: tuple[Rejected, ...] = ()
    """Items that could not be read and are in none of the parts."""

    def counts(self) -> dict[str, int]:
        """Examples per split."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}

    def fingerprint(self) -> str:
        """sha256 over the inputs and labels of every part in order: equal only for the same items, split alike."""
        digest = hashlib.sha256()
        for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            digest.update(f"{name} {tuple(part.inputs.shape)}".encode())
            for values in (part.inputs, part.labels):
                if values is not None:
                    digest.update(values.cpu().contiguous().view(-1).numpy().data)
        return digest.hexdigest()
