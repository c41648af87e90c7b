"""PLY: ascii and binary of both endians; any line ends, any properties, polygons of any number of corners."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Container
from dataclasses import dataclass
from itertools import islice, takewhile

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs.errors import Limits
from isolatent_export.inputs.readers.common import Geometry, fan, lines, require_few, table

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8", "bool"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("int64", "long"), "i8"),
    **dict.fromkeys(("uint64", "ulong"), "u8"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_CORNERS = ("vertex_indices", "vertex_index")
_LONGEST_HEADER = 65_536

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class _Property:
    name: str
    dtype: np.dtype[np.generic]
    lengths: np.dtype[np.generic] | None
    """Type of the number that precedes a list; None for a single value."""


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]


@dataclass(frozen=True)
class _Columns:
    """An element's values: (count,) per property; of a list property all values, with the lengths beside them."""

    values: dict[str, Numbers]
    lengths: dict[str, NDArray[np.int64]]


def read(data: bytes, limits: Limits) -> Geometry:
    """Vertices, and faces where there are any. Raises InputError or ValueError."""
    elements, form, start = _header(data)
    needed = [element.name for element in elements if element.name in ("vertex", *_FACES) and element.count]
    source: _Ascii | _Binary = _Ascii(data[start:]) if form == "ascii" else _Binary(data, start)
    points, triangles = np.empty((0, 3)), list[NDArray[np.int64]]()
    for element in elements:
        if not needed:
            break  # what follows is of no use
        require_few(element.count, limits, f"rows of `{element.name}`")
        columns = _take(element, source)
        if element.name == "vertex":
            points = np.stack([columns.values[axis] for axis in _axes(columns.values)], axis=1)
        elif element.name in _FACES:
            name = next((name for name in _CORNERS if name in columns.lengths), None)
            if name is not None:
                divide = _FACES[element.name]
                triangles.append(divide(columns.lengths[name], columns.values[name].astype(np.int64)))
        if element.name in needed:
            needed.remove(element.name)
    return Geometry(points, np.concatenate(triangles) if triangles else None)


def _strips(lengths: NDArray[np.int64], corners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Strips of `lengths` corners as triangles (F, 3); -1 within a strip begins another. Every other one is turned."""
    corners = np.insert(corners, np.cumsum(lengths), -1)
    found = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    whole: NDArray[np.int64] = found[(found != -1).all(axis=1)]
    return whole


_FACES = {"face": fan, "tristrips": _strips}


def _header(data: bytes) -> tuple[list[_Element], str, int]:
    """Elements, format, and where the body starts. The first line shows how lines end: LF, CR LF or CR alone."""
    opening = re.match(rb"ply[ \t]*(\r\n|\n|\r)", data)
    if opening is None:
        raise ValueError("the first line is not `ply`")
    ends = rb"\r" if opening[1] == b"\r" else rb"\r?\n"  # no more: a body may begin with a byte that looks like one
    ending = re.compile(rb"[\r\n][ \t]*end_header[ \t]*" + ends).search(data, 0, _LONGEST_HEADER)
    if ending is None:
        raise ValueError("no end_header")
    form, elements = "", list[_Element]()
    for line in re.split(rb"[\r\n]+", data[opening.end() : ending.start()]):  # not str.splitlines: it knows more ends
        match [word.decode("latin-1") for word in line.split()]:
            case ["format", str(form), *_]:
                pass
            case ["element", name, count] if count.isdecimal() and len(count) < 19:
                elements.append(_Element(name, int(count), ()))
            case ["property", *declaration] if elements:
                last, added = elements[-1], _property(declaration, ">" if "big" in form else "<")
                elements[-1] = _Element(last.name, last.count, (*last.properties, added))
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise ValueError(f"header line {line[:60]!r}")
    if form not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise ValueError(f"format {form[:40]!r}")
    return elements, form, ending.end()


def _property(declaration: list[str], order: str) -> _Property:
    match declaration:
        case ["list", lengths, kind, name] if lengths in _TYPES and kind in _TYPES:
            return _Property(name, np.dtype(order + _TYPES[kind]), np.dtype(order + _TYPES[lengths]))
        case [kind, name] if kind in _TYPES:
            return _Property(name, np.dtype(order + _TYPES[kind]), None)
    raise ValueError(f"property {' '.join(declaration)[:60]!r}")


def _take(element: _Element, source: _Ascii | _Binary) -> _Columns:
    """Read an element's rows: at once where all are alike, else one by one."""
    if element.count == 0 or not element.properties:
        return _Columns({each.name: np.empty(0) for each in element.properties}, {})
    columns = source.alike(element)
    return columns if columns is not None else _row_by_row(element, source.value)


def _row_by_row(element: _Element, value: Callable[[np.dtype[np.generic], int], Numbers]) -> _Columns:
    parts = {each.name: array("d") for each in element.properties}
    lengths = {each.name: array("q") for each in element.properties if each.lengths is not None}
    for _ in range(element.count):
        for each in element.properties:
            length = 1
            if each.lengths is not None:
                length = int(value(each.lengths, 1)[0])
                lengths[each.name].append(length)
            parts[each.name].extend(value(each.dtype, length).tolist())
    return _Columns(
        {name: np.array(numbers, np.float64) for name, numbers in parts.items()},
        {name: np.array(numbers, np.int64) for name, numbers in lengths.items()},
    )


class _Ascii:
    """The rows of an ascii body, one line each."""

    def __init__(self, body: bytes) -> None:
        self._rows = lines(body.replace(b"\r", b"\n"))
        self._numbers = np.empty(0)  # of the element being read
        self._at = 0

    def value(self, dtype: np.dtype[np.generic], length: int) -> Numbers:  # noqa: ARG002 - text has one type
        """The next `length` numbers."""
        taken = self._numbers[self._at : self._at + length]
        if length < 0 or len(taken) < length:
            raise ValueError("the file is cut")
        self._at += length
        return taken

    def alike(self, element: _Element) -> _Columns | None:
        """All rows, if each has as many numbers as the first; else None."""
        axes = _leading_axes(element)
        if axes is not None:  # what follows x, y and z may be missing, and sometimes is
            return _Columns(dict(zip("xyz", table(self._rows, axes, count=element.count).T, strict=True)), {})
        self._numbers = np.fromstring(b" ".join(islice(self._rows, element.count)), np.float64, sep=" ")
        self._at = 0
        numbers, width = self._numbers, 0
        spans: dict[str, slice] = {}
        for each in element.properties:
            if each.lengths is not None:
                width += 1
            length = 1 if each.lengths is None else _length(numbers[width - 1 : width])
            spans[each.name] = slice(width, width + length)
            width += length
        if len(numbers) < element.count * width:
            return None
        rows = numbers[: element.count * width].reshape(element.count, width)
        for each in element.properties:
            span = spans[each.name]
            if each.lengths is not None and not (rows[:, span.start - 1] == span.stop - span.start).all():
                return None
        self._at += element.count * width
        return _Columns(
            {name: rows[:, span].ravel() for name, span in spans.items()},
            {
                each.name: np.full(element.count, spans[each.name].stop - spans[each.name].start)
                for each in element.properties
                if each.lengths is not None
            },
        )


class _Binary:
    """The values of a binary body, in order."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._at = start

    def value(self, dtype: np.dtype[np.generic], length: int) -> Numbers:
        """The next `length` values."""
        if not 0 <= length * dtype.itemsize <= len(self._data) - self._at:
            raise ValueError("the file is cut")
        taken: Numbers = np.frombuffer(self._data, dtype, length, self._at)
        self._at += length * dtype.itemsize
        return taken

    def alike(self, element: _Element) -> _Columns | None:
        """All rows, if each takes as many bytes as the first; else None."""
        fields: list[tuple[str, np.dtype[np.generic], tuple[int, ...]]] = []
        lengths: dict[str, int] = {}
        size = 0
        for each in element.properties:
            length = 1
            if each.lengths is not None:
                here = self._at + size
                length = _length(np.frombuffer(self._data[here : here + each.lengths.itemsize], each.lengths))
                fields.append((f"length of {each.name}", each.lengths, ()))
                lengths[each.name] = length
                size += each.lengths.itemsize
            size += length * each.dtype.itemsize
            if self._at + element.count * size > len(self._data):
                return None
            fields.append((f"values of {each.name}", each.dtype, (length,)))
        rows = np.frombuffer(self._data, np.dtype(fields), element.count, self._at)
        if not all((rows[f"length of {name}"] == length).all() for name, length in lengths.items()):
            return None
        self._at += element.count * size
        return _Columns(
            {each.name: rows[f"values of {each.name}"].astype(np.float64).ravel() for each in element.properties},
            {name: np.full(element.count, length) for name, length in lengths.items()},
        )


def _leading_axes(element: _Element) -> list[int] | None:
    """Columns of x, y and z where they come before any list."""
    single = list(takewhile(lambda each: each.lengths is None, element.properties))
    names = [each.name for each in single]
    axes = _axes(names)
    return [names.index(axis) for axis in axes] if set(axes) <= set(names) else None


def _axes(names: Container[str]) -> str:
    return "XYZ" if "X" in names and "x" not in names else "xyz"


def _length(number: NDArray[np.generic]) -> int:
    if len(number) == 0 or not 0 <= number[0] < 2**31:
        raise ValueError("the file is cut, or a list has a length that is not possible")
    return int(number[0])
