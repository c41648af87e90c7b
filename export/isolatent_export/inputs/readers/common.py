"""What the readers share: the geometry they give, and how they take lines, tables and counts from text."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs.errors import InputError, Limits

_LONGEST_LINE = 1_000_000
"""A million numbers in one line would become a million Python objects."""


@dataclass(frozen=True)
class Geometry:
    """What a file describes: points (M, 3) float64; of a mesh they are its vertices, with triangles (F, 3) int64."""

    points: NDArray[np.float64]
    triangles: NDArray[np.int64] | None = None


def require_few(count: int, limits: Limits, what: str) -> None:
    """Raise InputError when a file announces more points, vertices or faces than are accepted."""
    if count > limits.points:
        raise InputError("too_many_points", f"{count} {what}, the limit is {limits.points}; thin the cloud out first")


def require_module(name: str, form: str) -> Any:
    """Import what reads a format. Raises InputError that names the extra to install."""
    try:
        return importlib.import_module(name)
    except ImportError:
        advice = 'install it with: pip install "isolatent[clouds]"'
        raise InputError("undecodable", f"{form} files are read by the package {name}; {advice}") from None


def lines(data: bytes, comment: bytes = b"") -> Iterator[bytes]:
    """Lines that are not blank, stripped, without what follows `comment`, one by one. Raises ValueError."""
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    for line in io.BytesIO(data):
        if len(line) > _LONGEST_LINE:
            raise ValueError(f"a line of {len(line)} bytes")
        kept = (line.split(comment, 1)[0] if comment else line).strip()
        if kept:
            yield kept


def table(
    rows: Iterator[bytes], columns: Sequence[int], *, count: int | None = None, delimiter: str | None = None
) -> NDArray[np.float64]:
    """Numbers of `columns` in the next `count` rows (None: all that follow), (rows, columns).

    Raises ValueError where a row is no row of numbers, or there are too few.
    """
    wanted: Iterable[bytes] = islice(rows, count)
    first = next(iter(wanted), None)
    if first is None:
        numbers = np.empty((0, len(columns)))
    else:
        wanted = chain([first], wanted)
        numbers = np.loadtxt(wanted, np.float64, comments=None, delimiter=delimiter, usecols=columns, ndmin=2)
    if count is not None and len(numbers) != count:
        raise ValueError(f"{count} rows announced, {len(numbers)} there")
    return numbers


def fan(lengths: NDArray[np.int64], corners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Polygons of `lengths` corners each, one after the other in `corners`, as triangles (F, 3) around their first."""
    starts = np.cumsum(lengths) - lengths
    pieces = np.clip(lengths - 2, 0, None)
    first = np.repeat(starts, pieces)
    step = np.arange(len(first)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], axis=1)
