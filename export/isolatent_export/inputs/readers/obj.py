"""OBJ by trimesh: vertices and faces; materials, textures and other files are never looked at."""

from __future__ import annotations

import io
import re

import numpy as np

from isolatent_export.inputs.errors import Limits
from isolatent_export.inputs.readers.common import Geometry, lines, require_few, require_module

_VERTEX = re.compile(rb"(?:\A|[\r\n])[ \t]*v[ \t]+[-+.\dnNiI]")


def looks_like_it(data: bytes) -> bool:
    """Whether the text has a line that looks like a vertex; the format has no magic number."""
    return _VERTEX.search(data) is not None


def read(data: bytes, limits: Limits) -> Geometry:
    """All objects together, polygons as triangles. Vertices are counted as renderers do: those that a face uses, once
    for each normal and texture coordinate they are used with.

    Raises InputError, or whatever trimesh raises on a broken file.
    """
    content = _geometry_alone(data, limits)
    trimesh = require_module("trimesh", "OBJ")
    scene = trimesh.load_scene(
        io.BytesIO(content), file_type="obj", process=False, skip_materials=True, allow_remote=False, resolver=None
    )
    points, triangles, count = [np.empty((0, 3))], [np.empty((0, 3), np.int64)], 0
    for part in scene.geometry.values():
        points.append(np.asarray(part.vertices, np.float64))
        triangles.append(np.asarray(getattr(part, "faces", np.empty((0, 3))), np.int64) + count)
        count += len(points[-1])
    faces = np.concatenate(triangles)
    return Geometry(np.concatenate(points), faces if len(faces) else None)


def _geometry_alone(data: bytes, limits: Limits) -> bytes:
    """Lines of vertices and faces as trimesh reads them all: single spaces, no comments, vertices by number.

    They are counted, and others left out: thousands of names or materials would keep trimesh busy for hours.
    """
    kept, counts, triangles = [], {b"v": 0, b"vt": 0, b"vn": 0}, 0
    for row in lines(re.sub(rb"\\(?:\r\n?|\n)", b" ", data), comment=b"#"):
        kind, *words = row.split()
        line = b" ".join([kind, *words])
        if kind in counts:
            counts[kind] += 1
        elif kind == b"f":
            triangles += max(len(words) - 2, 0)
            if b"-" in line or b" 0" in line:
                line = b" ".join([kind, *(_by_number(word, list(counts.values())) for word in words)])
        else:
            continue
        kept.append(line)
    require_few(counts[b"v"], limits, "vertices")
    require_few(triangles, limits, "triangles")
    return b"\n".join(kept)


def _by_number(corner: bytes, counts: list[int]) -> bytes:
    """A corner `v/vt/vn` without negative numbers: those count back from the last line read so far."""
    places: list[bytes] = []
    for word, count in zip(corner.split(b"/"), counts, strict=False):
        place = int(word or 0)  # `1//3` has no texture, and some programs write 0 for none
        if place == 0 and not places:
            raise ValueError("a face names vertex 0; the first is 1")
        if place < -count:
            raise ValueError(f"a face counts {-place} lines back where {count} have come")
        places.append(b"%d" % (place if place > 0 else count + 1 + place) if place else word)
    return b"/".join(places)
