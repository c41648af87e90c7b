"""Helpers that the tests of data sources share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

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
    return [image.numpy().tobytes() for part in parts for image in part.pixels]
