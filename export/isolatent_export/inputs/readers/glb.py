"""GLB, the binary form of glTF: every mesh of the scene where the scene puts it, and nothing beside geometry."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.inputs.readers.common import Geometry, require_few

_TYPES = {5120: "i1", 5121: "u1", 5122: "i2", 5123: "u2", 5125: "u4", 5126: "f4"}
_WIDTHS = {"SCALAR": 1, "VEC3": 3}
_POINTS, _TRIANGLES, _STRIP, _FAN = 0, 4, 5, 6  # lines, 1 to 3, are passed over

Array = NDArray[Any]
Facts = dict[str, Any]


def read(data: bytes, limits: Limits) -> Geometry:
    """Points and triangles of all placed meshes together. Raises InputError, or what comes of facts that do not fit."""
    scene, content = _chunks(data)
    points: list[NDArray[np.float64]] = [np.empty((0, 3))]
    triangles: list[NDArray[np.int64]] = [np.empty((0, 3), np.int64)]
    vertices = faces = 0
    for matrix, primitive in _placed(scene):
        mode = primitive.get("mode", _TRIANGLES)
        if mode not in (_POINTS, _TRIANGLES, _STRIP, _FAN):
            continue
        if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
            raise InputError("undecodable", "a GLB file compressed by Draco; save it without compression")
        place = primitive["attributes"]["POSITION"]
        count = scene["accessors"][place]["count"]
        require_few(vertices + count, limits, "vertices")  # one mesh may be placed many times
        local = _accessor(scene, content, place).astype(np.float64).reshape(count, 3)
        points.append(local @ matrix[:3, :3].T + matrix[:3, 3])
        if mode != _POINTS:
            indices = primitive.get("indices")
            corners = np.arange(count) if indices is None else _accessor(scene, content, indices)[:, 0].astype(np.int64)
            found = _faces(corners, mode)
            faces += len(found)
            require_few(faces, limits, "triangles")
            if len(found) and found.max() >= count:
                raise ValueError("a face names a vertex that is not there")
            triangles.append(found + vertices)
        vertices += count
    return Geometry(np.concatenate(points), np.concatenate(triangles) if faces else None)


def _chunks(data: bytes) -> tuple[Facts, bytes]:
    """The description and the binary content."""
    size, kind = struct.unpack_from("<I4s", data, 12)
    if kind != b"JSON" or size > len(data) - 20:
        raise ValueError("its first chunk is no description")
    scene = json.loads(data[20 : 20 + size])
    start = 20 + size
    if len(data) < start + 8:
        return scene, b""
    size, kind = struct.unpack_from("<I4s", data, start)
    if kind != b"BIN\0" or size > len(data) - start - 8:
        raise ValueError("its second chunk is cut")
    return scene, data[start + 8 : start + 8 + size]


def _placed(scene: Facts) -> Iterator[tuple[NDArray[np.float64], Facts]]:
    """Each part of a mesh with the matrix (4, 4) that places it; a file without scenes has its meshes as they are."""
    meshes, nodes = scene.get("meshes", []), scene.get("nodes", [])
    if not nodes:
        for mesh in meshes:
            for primitive in mesh["primitives"]:
                yield np.eye(4), primitive
        return
    scenes = scene.get("scenes", [])
    if scenes:
        roots = scenes[scene.get("scene", 0)].get("nodes", [])
    else:
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [place for place in range(len(nodes)) if place not in children]
    seen: set[int] = set()
    waiting = [(place, np.eye(4)) for place in roots]
    while waiting:
        place, parent = waiting.pop()
        if place in seen:  # nodes form trees: no cycles, one parent each
            continue
        seen.add(place)
        node = nodes[place]
        matrix = parent @ _matrix(node)
        waiting.extend((child, matrix) for child in node.get("children", []))
        if "mesh" in node:
            for primitive in meshes[node["mesh"]]["primitives"]:
                yield matrix, primitive


def _matrix(node: Facts) -> NDArray[np.float64]:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T  # column by column
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= np.array(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _accessor(scene: Facts, content: bytes, place: int) -> Array:
    """Rows of numbers (count, width), as a view of the content. Nothing outside the file is ever opened."""
    facts = scene["accessors"][place]
    view = scene["bufferViews"][facts["bufferView"]]
    if "sparse" in facts or view.get("buffer", 0) != 0 or "uri" in scene["buffers"][0]:
        raise ValueError("its numbers are not in the file itself, or sparse")
    dtype, width = np.dtype("<" + _TYPES[facts["componentType"]]), _WIDTHS[facts["type"]]
    count, stride = facts["count"], view.get("byteStride", dtype.itemsize * width)
    start = view.get("byteOffset", 0) + facts.get("byteOffset", 0)
    if count < 1 or start < 0 or not dtype.itemsize * width <= stride <= 252:
        raise ValueError("an accessor is not possible")
    if start + (count - 1) * stride + dtype.itemsize * width > len(content):
        raise ValueError("the file is cut")
    rows: Array = np.ndarray((count, width), dtype, content, start, (stride, dtype.itemsize))
    if facts.get("normalized"):
        rows = np.maximum(rows / np.iinfo(dtype).max, -1)
    return rows


def _faces(corners: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    if mode == _TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if mode == _FAN:
        return np.stack([np.broadcast_to(corners[:1], corners[2:].shape), corners[1:-1], corners[2:]], axis=1)
    strip = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    strip[1::2, :2] = strip[1::2, 1::-1]  # every other one is turned; its area is the same
    return strip
