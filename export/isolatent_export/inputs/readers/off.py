"""OFF and its relatives COFF, NOFF, STOFF: counts beside or below the header, comments, any white space."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator

import numpy as np

from isolatent_export.inputs.errors import Limits
from isolatent_export.inputs.readers.common import Geometry, fan, lines, require_few, table

HEADER = re.compile(rb"\s*(?:#[^\r\n]*[\r\n]\s*)*(?:ST)?C?N?OFF(?=[\s\d#]|\Z)")
"""Many files of ModelNet lack the line end after OFF: `OFF352 322 0`."""


def read(data: bytes, limits: Limits) -> Geometry:
    """Vertices and triangulated faces; normals and colours are passed over. Raises InputError or ValueError."""
    header = HEADER.match(data)
    body = data[header.end() if header else 0 :]
    rows = lines(body, comment=b"#")
    counts = next(rows, b"").split()
    if len(counts) < 2 or not all(count.isdigit() and len(count) < 19 for count in counts[:2]):
        raise ValueError("no numbers of vertices and faces after OFF")
    vertices, faces = int(counts[0]), int(counts[1])
    require_few(vertices, limits, "vertices")
    require_few(faces, limits, "faces")
    most = max(body.count(b"\n"), body.count(b"\r")) + 1
    if vertices + faces > most:
        raise ValueError(f"{vertices} vertices and {faces} faces announced, {most} lines there")
    points = table(rows, (0, 1, 2), count=vertices)
    return Geometry(points, _triangles(rows, faces) if faces else None)


def _triangles(rows: Iterator[bytes], count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    lengths, corners = array("q"), array("q")
    for row in rows:
        length, *rest = row.split()
        wanted = int(length)
        if not 0 <= wanted <= len(rest):
            raise ValueError(f"a face of {wanted} corners with {len(rest)} numbers")
        lengths.append(wanted)
        corners.extend(map(int, rest[:wanted]))
        if len(lengths) == count:
            return fan(np.array(lengths, np.int64), np.array(corners, np.int64))
    raise ValueError(f"{count} faces announced, {len(lengths)} there")
