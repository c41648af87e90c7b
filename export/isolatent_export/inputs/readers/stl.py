"""STL, binary and ascii: three vertices per triangle, none shared."""

from __future__ import annotations

import struct

import numpy as np

from isolatent_export.inputs.errors import Limits
from isolatent_export.inputs.readers.common import Geometry, lines, require_few, table

_HEADER = 84  # 80 bytes of anything, then the number of triangles
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def is_binary(data: bytes) -> bool:
    """Whether the announced triangles fill the file, or most of it and look like some: there is no magic number.

    Some programs add bytes of their own. No text is taken for it: its bytes 80 to 84 would announce gigabytes.
    """
    if len(data) < _HEADER:
        return False
    announced, there = _TRIANGLE.itemsize * _count(data), len(data) - _HEADER
    return announced == there or (there / 2 < announced < there and _has_sizes(_rows(data)["corners"]))


def is_ascii(data: bytes) -> bool:
    """Whether the text starts like one; binary files may say `solid` too."""
    return data[:256].lstrip()[:5].lower() == b"solid" and b"\0" not in data[:4096]


def read_binary(data: bytes, limits: Limits) -> Geometry:
    """Triangles in the order of the file. Raises InputError."""
    require_few(_count(data), limits, "triangles")
    return _soup(_rows(data)["corners"].astype(np.float64).reshape(-1, 3))


def read_ascii(data: bytes, limits: Limits) -> Geometry:
    """Triangles in the order of the file. Raises InputError or ValueError."""
    require_few(data.lower().count(b"vertex") // 3, limits, "triangles")
    vertices = (line for line in lines(data) if line[:6].lower() == b"vertex")
    return _soup(table(vertices, (1, 2, 3)))


def _count(data: bytes) -> int:
    count: int = struct.unpack_from("<I", data, _HEADER - 4)[0]
    return count


def _rows(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.void]]:
    return np.frombuffer(data, _TRIANGLE, _count(data), _HEADER)


def _has_sizes(corners: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
    """Whether these could be lengths; of bytes that mean something else, too many are near 1e-30, 1e30 or no number."""
    sizes = np.abs(corners)
    return bool(((sizes == 0) | ((sizes > 1e-12) & (sizes < 1e12))).all())


def _soup(points: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Geometry:
    if len(points) % 3:
        raise ValueError(f"{len(points)} vertices make no whole triangles")
    return Geometry(points, np.arange(len(points)).reshape(-1, 3))
