"""Data sets by specification: `digits`, ... A new one is one new file beside digits.py and one line in `_SOURCES`."""

from __future__ import annotations

from collections.abc import Callable

from isolatent_train.data import digits
from isolatent_train.data.splits import DataError, Labelled, Splits

__all__ = ["DataError", "Labelled", "Splits", "load_data", "source_names"]

_SOURCES: dict[str, Callable[[str], Splits]] = {"digits": digits.load}


def load_data(spec: str) -> Splits:
    """Load the splits that `spec` (NAME or NAME:PLACE) names. Raises DataError with the remedy."""
    name, _, place = spec.partition(":")
    source = _SOURCES.get(name)
    if source is None:
        raise DataError(f"data {spec!r}: unknown source {name!r}; known are {', '.join(source_names())}")
    return source(place)


def source_names() -> list[str]:
    """Names of the known sources."""
    return sorted(_SOURCES)
