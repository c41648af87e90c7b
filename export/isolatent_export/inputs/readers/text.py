"""Text with one point per line: XYZ, PTS, CSV and their like. A header or a count may come first."""

from __future__ import annotations

import re
from itertools import chain

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.inputs.readers.common import Geometry, lines, require_few, table

_COMMENTS = (b"#", b"//", b";", b"%")


def read(data: bytes, limits: Limits) -> Geometry | None:
    """The first three columns, or those that a header names x, y and z; None when it does not look like numbers.

    Raises InputError or ValueError.
    """
    if b"\0" in data[:4096]:
        return None
    rows = (line for line in lines(data) if not line.startswith(_COMMENTS))
    first, announced, columns = next(rows, b""), None, (0, 1, 2)
    if first.isdigit() and len(first) < 12:  # PTS starts with the number of points
        announced = int(first)
        require_few(announced, limits, "points")
        first = next(rows, b"")
    delimiter = _delimiter(first)
    if not _is_numeric(first, delimiter, columns):
        columns = _named(first, delimiter)
        first = next(rows, b"")
        delimiter = _delimiter(first)
        if not _is_numeric(first, delimiter, columns):
            return None
    require_few(data.count(b"\n") - 100, limits, "lines")  # before any of them is kept; comments are few
    points = table(chain([first], rows), columns, delimiter=delimiter)
    require_few(len(points), limits, "points")
    if announced not in (None, len(points)):
        raise InputError("undecodable", f"{announced} points announced, {len(points)} there; the file is cut or forged")
    return Geometry(points)


def _delimiter(line: bytes) -> str | None:
    return next((mark.decode() for mark in (b";", b",") if mark in line), None)


def _cells(line: bytes, delimiter: str | None) -> list[str]:
    return [cell.strip(" \t\"'") for cell in line.decode("latin-1").split(delimiter)]


def _is_numeric(line: bytes, delimiter: str | None, columns: tuple[int, ...]) -> bool:
    cells = _cells(line, delimiter)
    try:
        return len([float(cells[column]) for column in columns]) == 3
    except (ValueError, IndexError):
        return False


def _named(line: bytes, delimiter: str | None) -> tuple[int, int, int]:
    names = [re.sub(r"[^a-z0-9]", "", cell.lower()) for cell in _cells(line, delimiter)]
    if all(axis in names for axis in "xyz"):
        return names.index("x"), names.index("y"), names.index("z")
    return 0, 1, 2
