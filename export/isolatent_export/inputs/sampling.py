"""A fixed number of points from geometry of any size. Deterministic: the same input gives the same points.

Everything here is a function of its arguments alone; where chance is needed the seed is fixed.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs import interruption
from isolatent_export.inputs.readers.common import Geometry

Points = NDArray[np.float64]

_SEED = 2001
_BUDGET = 2**27
"""Distances that farthest-point sampling may compute per cloud, a second or so on one core."""


def sample(geometry: Geometry, count: int, rule: Literal["random", "farthest"]) -> Points:
    """`count` points (count, 3): of a mesh from its surface, of a cloud (M >= 1) from its points.

    A mesh whose faces all have no area counts as the cloud of its vertices.
    """
    pool = count if rule == "random" else min(_candidates(count), max(16 * count, 16_384))
    points = geometry.points
    if geometry.triangles is not None:
        surface = sample_surface(geometry.points, geometry.triangles, pool)
        points = geometry.points if surface is None else surface
    chosen: Points = pick(points[None], count, rule)[0]
    return chosen


def sample_surface(
    vertices: Points, triangles: NDArray[np.int64], count: int, seed: int | np.random.Generator = _SEED
) -> Points | None:
    """`count` points drawn uniformly from the surface (count, 3); None where no triangle has any area."""
    size = np.abs(vertices - vertices[0]).max()  # areas are compared at a scale where squares stay finite
    a, b, c = np.moveaxis((vertices[triangles] - vertices[0]) / (size or 1.0), 1, 0)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not areas.sum() > 0:
        return None
    rng = np.random.default_rng(seed)
    total = np.cumsum(areas)
    chosen = np.searchsorted(total, rng.random(count) * total[-1], side="right")  # never a face without area
    chosen = np.minimum(chosen, np.flatnonzero(areas)[-1])  # where rounding reached the total
    u, v = rng.random((2, count, 1))
    u, v = np.where(u + v > 1, (1 - u, 1 - v), (u, v))  # the other half of the parallelogram, folded back
    corners = vertices[triangles[chosen]]
    origin = corners[:, 0]
    found: Points = origin + u * (corners[:, 1] - origin) + v * (corners[:, 2] - origin)
    return found


def pick(clouds: NDArray[Any], count: int, rule: Literal["random", "farthest"]) -> NDArray[Any]:
    """`count` points of each cloud (N, M, 3), M >= 1, as (N, count, 3). Fewer: all of them, the rest repeated."""
    available = clouds.shape[1]
    if available == count:
        return clouds
    shuffled = np.random.default_rng(_SEED).permutation(available)
    if available < count:
        repeated = np.concatenate([np.tile(np.arange(available), count // available), shuffled[: count % available]])
        return clouds[:, repeated]
    if rule == "random":
        return clouds[:, np.sort(shuffled[:count])]
    pool = clouds[:, np.sort(shuffled[: _candidates(count)])]
    chosen = np.stack([_farthest(cloud, count) for cloud in pool])  # up to a second each
    return np.take_along_axis(pool, chosen[..., None], axis=1)


def _candidates(count: int) -> int:
    """How many points farthest-point sampling chooses from: all where it can, at least twice as many as it takes."""
    return max(_BUDGET // count, 2 * count)


def _farthest(cloud: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Indices of points, each the farthest from all before it; the first is the farthest from the mean."""
    interruption.check()
    exact = cloud.astype(np.float64)
    exact = exact - exact.mean(axis=0)
    axes = np.ascontiguousarray((exact / (np.abs(exact).max() or 1.0)).T, np.float32)  # (3, M)
    chosen = np.empty(count, np.intp)
    nearest = np.full(axes.shape[1], np.inf, np.float32)
    current = int(np.square(axes).sum(axis=0).argmax())
    for place in range(count):
        chosen[place] = current
        x, y, z = axes - axes[:, current, None]
        np.minimum(nearest, x * x + y * y + z * z, out=nearest)
        current = int(nearest.argmax())
    return chosen
