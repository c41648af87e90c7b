"""OBJ by trimesh: vertices and faces; materials, textures and other files are never looked at."""

from __future__ import annotations

import io
import re

import numpy as np

from isolatent_export.inputs.errors import Limits
from isolatent_export.inputs.readers.common import Geometry, lines, require_few, require_module

_VERTEX = re.compile(rb"^[ \t]*v[ \t]+[-+.\dnNiI]", re.MULTILINE)


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
    """Lines of vertices and faces, counted: thousands of names or materials would keep trimesh busy for hours."""
    kept, vertices, triangles = [], 0, 0
    for line in lines(re.sub(rb"\\\r?\n", b" ", data)):
        if line.startswith((b"v ", b"v\t")):
            vertices += 1
        elif line.startswith((b"f ", b"f\t")):
            triangles += line.count(b" ") + line.count(b"\t") - 2
        elif not line.startswith((b"vt", b"vn")):
            continue
        kept.append(line)
    require_few(vertices, limits, "vertices")
    require_few(triangles, limits, "triangles")
    return b"\n".join(kept)
