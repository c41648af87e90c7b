"""Point clouds and meshes of other libraries, recognised by their attributes: points to send, or a small PLY file.

Open3D (its older and its tensor classes), trimesh, laspy, and whatever else names its parts alike. Coordinates keep
their precision: a place on a map, millions of metres from its origin, needs float64. Colours and normals stay behind.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from isolatent._arrays import Points, points, to_numpy
from isolatent._errors import InputError


@runtime_checkable
class HasPoints(Protocol):
    """open3d.geometry.PointCloud."""

    @property
    def points(self) -> Any:
        """(M, 3)."""
        ...


@runtime_checkable
class HasVertices(Protocol):
    """open3d.geometry.TriangleMesh with `triangles`; trimesh.Trimesh with `faces`, trimesh.PointCloud without."""

    @property
    def vertices(self) -> Any:
        """(M, 3)."""
        ...


@runtime_checkable
class HasPoint(Protocol):
    """open3d.t.geometry.PointCloud."""

    @property
    def point(self) -> Any:
        """Tensors by name, among them `positions` (M, 3)."""
        ...


@runtime_checkable
class HasVertex(Protocol):
    """open3d.t.geometry.TriangleMesh, with the `indices` of its `triangle`."""

    @property
    def vertex(self) -> Any:
        """Tensors by name, among them `positions` (M, 3)."""
        ...


@runtime_checkable
class HasXyz(Protocol):
    """laspy.LasData."""

    @property
    def xyz(self) -> Any:
        """(M, 3)."""
        ...


@runtime_checkable
class Scene(Protocol):
    """trimesh.Scene, which is what trimesh loads most files as."""

    def to_geometry(self) -> Any:
        """All of it as one mesh or cloud, each part in its place."""
        ...


Geometry: TypeAlias = HasPoints | HasVertices | HasPoint | HasVertex | HasXyz | Scene


def to_data(value: Geometry, label: str) -> Points | bytes:
    """The points (M, 3) of a cloud, or a mesh as the content of a PLY file. Raises InputError."""
    if isinstance(value, Scene):
        value = value.to_geometry()
    what = f"{label} is a {type(value).__name__}"
    vertices, faces = _parts(value)
    if vertices is None:
        raise InputError(f"{what} without points; pass the path of the file it is from")
    array = to_numpy(vertices, label)
    if array.ndim != 2 or array.shape[1] != 3:
        raise InputError(f"{what} whose points {array.shape} are not (M, 3); pass them as a float array, or its file")
    exact = points(array, f"{what} of points {array.shape} of {array.dtype}")
    triangles = None if faces is None else to_numpy(faces, label)
    if triangles is None or triangles.size == 0:
        return exact
    if triangles.dtype.kind not in "iu" or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise InputError(
            f"{what} whose faces {triangles.shape} are no triangles (F, 3); triangulate it, or pass its file"
        )
    return ply(exact, triangles)


def ply(vertices: Points, triangles: NDArray[Any]) -> bytes:
    """A mesh as a binary PLY file: vertices (M, 3) in their own precision, triangles (F, 3) of vertex numbers."""
    number = "float" if vertices.dtype.itemsize == 4 else "double"
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *(f"property {number} {axis}" for axis in "xyz"),
        f"element face {len(triangles)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    faces = np.empty(len(triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, triangles
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def _parts(value: Any) -> tuple[Any, Any]:
    """The points and the triangles of `value`, each None where there are none."""
    match value:
        case HasXyz():
            return value.xyz, None
        case HasPoint():
            return _entry(value.point, "positions"), None
        case HasVertex():
            return _entry(value.vertex, "positions"), _entry(getattr(value, "triangle", ()), "indices")
        case HasPoints():
            return value.points, getattr(value, "faces", None)
        case HasVertices():  # trimesh has `triangles` too, which are the coordinates of their corners
            return value.vertices, getattr(value, "faces" if hasattr(value, "faces") else "triangles", None)
    return None, None


def _entry(tensors: Any, name: str) -> Any:
    return tensors[name] if name in tensors else None  # noqa: SIM401 (Open3D's maps have no `get`)
