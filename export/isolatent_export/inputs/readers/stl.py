"""STL, binary and ascii: three vertices per triangle, none shared."""

from __future__ import annotations

import struct

import numpy as np

from isolatent_export.inputs.errors import Limits
from isolatent_export.inputs.readers.common import Geometry, lines, require_few, table

_HEADER = 84  # 80 bytes of anything, then the number of triangles
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def is_binary(data: bytes) -> bool:
    """Whether the length is just what the number of triangles asks for: the format has no magic number."""
    return len(data) >= _HEADER and len(data) == _HEADER + _TRIANGLE.itemsize * _count(data)


def is_ascii(data: bytes) -> bool:
    """Whether the text starts like one; binary files may say `solid` too."""
    return data[:256].lstrip()[:5].lower() == b"solid" and b"\0" not in data[:4096]


def read_binary(data: bytes, limits: Limits) -> Geometry:
    """Triangles in the order of the file. Raises InputError."""
    require_few(_count(data), limits, "triangles")
    rows = np.frombuffer(data, _TRIANGLE, offset=_HEADER)
    return _soup(rows["corners"].astype(np.float64).reshape(-1, 3))


def read_ascii(data: bytes, limits: Limits) -> Geometry:
    """Triangles in the order of the file. Raises InputError or ValueError."""
    require_few(data.lower().count(b"vertex") // 3, limits, "triangles")
    vertices = (line for line in lines(data) if line[:6].lower() == b"vertex")
    return _soup(table(vertices, (1, 2, 3)))


def _count(data: bytes) -> int:
    count: int = struct.unpack_from("<I", data, _HEADER - 4)[0]
    return count


def _soup(points: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Geometry:
    if len(points) % 3:
        raise ValueError(f"{len(points)} vertices make no whole triangles")
    return Geometry(points, np.arange(len(points)).reshape(-1, 3))
