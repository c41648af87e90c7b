"""PCD of the Point Cloud Library: ascii, binary and binary_compressed (LZF), organised or not."""

from __future__ import annotations

import re
import struct

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.inputs.readers.common import Geometry, lines, require_few, require_module, table

HEADER = re.compile(rb"\s*(?:#[^\n]*\n\s*)*(?:VERSION|FIELDS)\s")

_DATA = re.compile(rb"^DATA[ \t]+(ascii|binary_compressed|binary)[ \t]*\r?\n", re.MULTILINE)
_TYPES = {"F4", "F8", "I1", "I2", "I4", "I8", "U1", "U2", "U4", "U8"}
_LONGEST_HEADER = 65_536


def read(data: bytes, limits: Limits) -> Geometry:
    """The points that were measured: an organised cloud holds NaN where the sensor saw nothing.

    Raises InputError or ValueError.
    """
    start = _DATA.search(data, 0, _LONGEST_HEADER)
    if start is None:
        raise ValueError("no line DATA ascii, binary or binary_compressed")
    header = {line.split()[0]: line.split()[1:] for line in lines(data[: start.start()], b"#")}
    dtype, columns = _fields(header)
    count = (
        _number(header, b"POINTS") if b"POINTS" in header else _number(header, b"WIDTH") * _number(header, b"HEIGHT")
    )
    require_few(count, limits, "points")
    body = data[start.end() :]
    if start[1] == b"ascii":
        points = table(lines(body), columns, count=count)
    elif start[1] == b"binary":
        points = _axes(np.frombuffer(_exactly(body, count * dtype.itemsize), dtype))
    else:
        points = _by_field(_unpack(body, count * dtype.itemsize, limits), dtype, count)
    return Geometry(points[np.isfinite(points).all(axis=1)])


def _fields(header: dict[bytes, list[bytes]]) -> tuple[np.dtype[np.void], list[int]]:
    """The record of one point, with fields x, y and z, and the columns of x, y and z in ascii rows."""
    names = [name.decode("latin-1").lower() for name in header.get(b"FIELDS", [])]
    kinds = [(kind + size).decode("latin-1") for kind, size in zip(header[b"TYPE"], header[b"SIZE"], strict=True)]
    counts = [int(count) for count in header.get(b"COUNT", [b"1"] * len(names))]
    if not set(kinds) <= _TYPES or any(not 1 <= count <= 65_536 for count in counts):
        raise ValueError("TYPE, SIZE or COUNT are not possible")
    if any(names.count(axis) != 1 or counts[names.index(axis)] != 1 for axis in "xyz"):
        raise ValueError("FIELDS do not name x, y and z once each")
    members: list[tuple[str, str, int]] = []
    for place, (name, kind, count) in enumerate(zip(names, kinds, counts, strict=True)):
        label = name if name in "xyz" else f"field {place}"  # padding fields are all named _
        members.append((label, "<" + kind.lower(), count))
    columns = [sum(counts[: names.index(axis)]) for axis in "xyz"]
    return np.dtype([(label, (kind, (count,)) if count > 1 else kind) for label, kind, count in members]), columns


def _number(header: dict[bytes, list[bytes]], key: bytes) -> int:
    text = header[key][0]
    if not text.isdigit() or len(text) > 12:
        raise ValueError(f"{key.decode()} is not a number of points")
    return int(text)


def _exactly(body: bytes, size: int) -> bytes:
    if len(body) < size:
        raise ValueError(f"{size} bytes of points announced, {len(body)} there")
    return body[:size]


def _unpack(body: bytes, size: int, limits: Limits) -> bytes:
    packed, unpacked = struct.unpack_from("<II", body)
    if unpacked != size:
        raise ValueError(f"{size} bytes of points announced, {unpacked} packed")
    if unpacked > limits.unpacked_bytes:
        raise InputError(
            "too_many_points", f"{unpacked} bytes unpacked, the limit is {limits.unpacked_bytes}; thin out"
        )
    content = require_module("lzf", "compressed PCD").decompress(_exactly(body[8:], packed), unpacked) if size else b""
    if content is None or len(content) != size:
        raise ValueError("the packed points are damaged")
    return bytes(content)


def _by_field(content: bytes, dtype: np.dtype[np.void], count: int) -> NDArray[np.float64]:
    """Compressed files hold all values of the first field, then all of the second, and so on."""
    assert dtype.fields is not None
    axes = [np.frombuffer(content, dtype[axis], count, dtype.fields[axis][1] * count) for axis in "xyz"]
    return np.stack(axes, axis=1).astype(np.float64)


def _axes(rows: NDArray[np.void]) -> NDArray[np.float64]:
    return np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)
