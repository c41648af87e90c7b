"""Text with one point per line: XYZ, PTS, CSV and their like. A header or a count may come first."""

from __future__ import annotations

import re
from itertools import chain

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.inputs.readers.common import Geometry, lines, require_few, table

_COMMENTS = (b"#", b"//", b";", b"%")
_AXES = (
    ("x", "easting", "east", "longitude", "lon"),
    ("y", "northing", "north", "latitude", "lat"),
    ("z", "elevation", "height", "altitude", "alt", "up"),
)
_UNIT = re.compile(rb"(?<=\w)[ \t]*[\[(][^\[\](),;]*[\])]")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[ed][-+]?\d+)?")
"""Also what only other programs take for one: `1.0D0` and `1,5`."""


def read(data: bytes, limits: Limits) -> Geometry | None:
    """The columns that a header names x, y and z, else the first three; None when it does not look like numbers.

    Raises InputError or ValueError.
    """
    if b"\0" in data[:4096]:
        return None
    rows = (line for line in lines(data) if not line.startswith(_COMMENTS))
    first, announced = next(rows, b""), None
    columns: tuple[int, ...] = (0, 1, 2)
    if first.isdigit() and len(first) < 12:  # PTS starts with the number of points
        announced = int(first)
        require_few(announced, limits, "points")
        first = next(rows, b"")
    delimiter = _delimiter(first)
    if not _is_numeric(first, delimiter, columns):
        names, first = _names(first, delimiter), next(rows, b"")
        delimiter, named = _delimiter(first), _named(names)
        columns = named or columns
        if not _is_numeric(first, delimiter, columns):
            if named is None:
                return None
            raise ValueError(f"no plain numbers under x, y and z in {_shown(first)}")
        width = len(_cells(first, delimiter))
        if named is None and width > 3 and abs(width - len(names)) < 2:  # else it is a title
            advice = f"a table of {width} columns of which none is x, y or z; name the columns x, y and z"
            raise InputError("undecodable", advice)
    require_few(data.count(b"\n") - 100, limits, "lines")  # before any of them is kept; comments are few
    points = table(chain([first], rows), columns, delimiter=delimiter)
    require_few(len(points), limits, "points")
    if announced not in (None, len(points)):
        raise InputError("undecodable", f"{announced} points announced, {len(points)} there; the file is cut or forged")
    return Geometry(points)


def _delimiter(line: bytes) -> str | None:
    return next((mark.decode() for mark in (b";", b",") if mark in line), None)


def _cells(line: bytes, delimiter: str | None) -> list[str]:
    return [cell.strip() for cell in line.decode("latin-1").split(delimiter)]


def _is_numeric(line: bytes, delimiter: str | None, columns: tuple[int, ...]) -> bool:
    cells = _cells(line, delimiter)
    try:
        return len([float(cells[column]) for column in columns]) == 3
    except (ValueError, IndexError):
        return False


def _names(line: bytes, delimiter: str | None) -> list[str]:
    """Names in a header, in lower case, without quotes and units. Raises ValueError where the row may be a point."""
    names = [cell.strip(" \t\"'") for cell in _cells(re.sub(_UNIT, b"", line.lower()), delimiter)]
    first = names[:3]
    if _named(names) is None and len(first) == 3 and any(not cell or _NUMBER.fullmatch(cell) for cell in first):
        raise ValueError(f"neither three plain numbers nor names of columns in the first row, {_shown(line)}")
    return names


def _named(names: list[str]) -> tuple[int, ...] | None:
    """Columns of x, y and z by name, by the one name that begins so, or by the one other name in use for it."""
    whole = [re.sub(r"[^a-z0-9]", "", name) for name in names]
    words = [next(iter(re.findall(r"[a-z]+", name)), "") for name in names]
    columns = []
    for axis, *others in _AXES:
        same = [column for column, name in enumerate(whole) if name == axis][:1]
        begin = [column for column, word in enumerate(words) if word == axis]
        other = [column for column, word in enumerate(words) if word in others]
        found = same or begin or other
        if len(found) != 1:
            return None
        columns += found
    return tuple(columns)


def _shown(line: bytes) -> str:
    return repr(line[:60].decode("latin-1"))
