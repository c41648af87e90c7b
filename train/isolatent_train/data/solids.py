"""Parametric solids as triangle meshes made with Open3D: a class is a function that draws the proportions of one.

Solids stand upright, z up. Their size and place are arbitrary: what is made of them is normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_train.data.splits import DataError

Mesh = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Vertices (V, 3) and the three vertices of each triangle (F, 3)."""


def make(name: str, rng: np.random.Generator) -> Mesh:
    """A solid of the class `name` with proportions drawn from `rng`. Raises DataError where Open3D is not installed."""
    mesh = SOLIDS[name](_library(), rng)
    return np.asarray(mesh.vertices).copy(), np.asarray(mesh.triangles).astype(np.int64)


def _arrow(library: Any, rng: np.random.Generator) -> Any:
    shaft = rng.uniform(0.15, 0.4)
    return library.create_arrow(
        cylinder_radius=shaft,
        cone_radius=shaft * rng.uniform(1.3, 2.5),
        cylinder_height=rng.uniform(1, 2.5),
        cone_height=rng.uniform(0.5, 1.5),
    )


def _box(library: Any, rng: np.random.Generator) -> Any:
    return library.create_box(*rng.uniform(0.5, 1.5, 3))


def _capsule(library: Any, rng: np.random.Generator) -> Any:
    mesh, half = library.create_sphere(1.0, resolution=20), rng.uniform(0.3, 1.5)
    vertices = np.asarray(mesh.vertices)  # a view: what is written here is the mesh's
    vertices[:, 2] += np.where(vertices[:, 2] > 1e-9, half, -half)
    return mesh


def _cone(library: Any, rng: np.random.Generator) -> Any:
    return _stretched(library.create_cone(1.0, rng.uniform(1, 3), resolution=40), rng)


def _cylinder(library: Any, rng: np.random.Generator) -> Any:
    return _stretched(library.create_cylinder(1.0, rng.uniform(0.8, 4), resolution=40), rng)


def _ellipsoid(library: Any, rng: np.random.Generator) -> Any:
    return _stretched(library.create_sphere(1.0, resolution=20), rng)


def _icosahedron(library: Any, rng: np.random.Generator) -> Any:
    return _stretched(library.create_icosahedron(1.0), rng)


def _mobius(library: Any, rng: np.random.Generator) -> Any:
    return _stretched(library.create_mobius(twists=1, width=rng.uniform(0.4, 1.2)), rng)


def _octahedron(library: Any, rng: np.random.Generator) -> Any:
    return _stretched(library.create_octahedron(1.0), rng)


def _prism(library: Any, rng: np.random.Generator) -> Any:
    return _stretched(library.create_cylinder(1.0, rng.uniform(0.8, 4), resolution=3, split=1), rng)


def _pyramid(library: Any, rng: np.random.Generator) -> Any:
    return _stretched(library.create_cone(1.0, rng.uniform(1, 3), resolution=4), rng)


def _tetrahedron(library: Any, rng: np.random.Generator) -> Any:
    return _stretched(library.create_tetrahedron(1.0), rng)


def _torus(library: Any, rng: np.random.Generator) -> Any:
    return _stretched(library.create_torus(1.0, rng.uniform(0.15, 0.6)), rng)


SOLIDS: dict[str, Callable[[Any, np.random.Generator], Any]] = {
    "arrow": _arrow,
    "box": _box,
    "capsule": _capsule,
    "cone": _cone,
    "cylinder": _cylinder,
    "ellipsoid": _ellipsoid,
    "icosahedron": _icosahedron,
    "mobius": _mobius,
    "octahedron": _octahedron,
    "prism": _prism,
    "pyramid": _pyramid,
    "tetrahedron": _tetrahedron,
    "torus": _torus,
}


def _stretched(mesh: Any, rng: np.random.Generator) -> Any:
    """The mesh with every axis stretched by a factor of its own."""
    vertices = np.asarray(mesh.vertices)  # a view: what is written here is the mesh's
    vertices *= rng.uniform(0.75, 1.25, 3)
    return mesh


def _library() -> Any:
    try:
        from open3d.geometry import TriangleMesh
    except (ImportError, OSError) as error:  # not installed, or a shared library is missing
        raise DataError(
            f"data 'shapes' needs Open3D ({error}); pip install \"isolatent[shapes]\", and where a shared library is "
            "missing: apt-get install libgl1 libegl1 libx11-6 libusb-1.0-0 libgomp1"
        ) from None
    return TriangleMesh
