"""Helpers that the tests of data sources share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isolatent_train.config import DataSection
from isolatent_train.data import Splits, load_data

Array = np.ndarray[Any, Any]


class Trap:
    """A pickle of it leaves the file `sprung` where it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


def load(spec: str, **section: Any) -> Splits:
    return load_data(DataSection(spec=spec, **section))


def unique_images(count: int, shape: tuple[int, ...] = (4, 4), seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def items(splits: Splits) -> list[bytes]:
    parts = (splits.train, splits.validation, splits.test)
    return [image.numpy().tobytes() for part in parts for image in part.inputs]


def clouds_of(count: int, points: int = 20, seed: int = 0) -> Array:
    """Clouds (N, M, 3) float32, each with a size and place of its own."""
    rng = np.random.default_rng(seed)
    size, place = rng.uniform(1, 1000, (count, 1, 1)), rng.normal(scale=100, size=(count, 1, 3))
    return (rng.normal(size=(count, points, 3)) * size + place).astype(np.float32)


def normalized(clouds: Array) -> Tensor:
    """The clouds with their mean at the origin and their farthest point at distance 1, computed independently."""
    centred = torch.from_numpy(clouds).double()
    centred = centred - centred.mean(1, keepdim=True)
    return (centred / centred.norm(dim=2).amax(1)[:, None, None]).float()
