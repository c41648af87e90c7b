"""Data sets by specification: `digits`, `idx:DIR`, `images:DIR`, ...

A new one is one new file beside digits.py and one line in `_SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable

from isolatent_train.config import DataSection
from isolatent_train.data import cifar10, clouds, digits, hf, idx, images, modelnet, npz, omniglot, shapes
from isolatent_train.data.splits import DataError, Labelled, Rejected, Splits

__all__ = ["DataError", "Labelled", "Rejected", "Splits", "load_data", "source_names"]

_SOURCES: dict[str, Callable[[str, DataSection], Splits]] = {
    "cifar10": cifar10.load,
    "clouds": clouds.load,
    "digits": digits.load,
    "hf": hf.load,
    "idx": idx.load,
    "images": images.load,
    "modelnet": modelnet.load,
    "npz": npz.load,
    "omniglot": omniglot.load,
    "shapes": shapes.load,
}


def load_data(section: DataSection) -> Splits:
    """Load the splits that the section's spec (SOURCE or SOURCE:PLACE) names. Raises DataError with the remedy."""
    name, _, place = section.spec.partition(":")
    source = _SOURCES.get(name)
    if source is None:
        raise DataError(f"data {section.spec!r}: unknown source {name!r}; known are {', '.join(source_names())}")
    return source(place, section)


def source_names() -> list[str]:
    """Names of the known sources."""
    return sorted(_SOURCES)
