"""`shapes`: 1,560 clouds of 13 kinds of parametric solids, made with Open3D; no file, no network.

Every solid has proportions and an orientation of its own, and its points have a scanner's noise. Orientations are drawn
from all rotations because upright solids are hardly a task: a linear SVM on the features of an untrained PointNet tells
95 % of those apart, and 57 % of these. `shapes:upright` turns them about the up axis only.

The split seed decides the solids, their points and the parts: equal seeds give equal bits on one machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs.sampling import sample_surface
from isolatent_train.config import DataSection
from isolatent_train.data.forms import CLOUDS
from isolatent_train.data.parts import finish, labelled, split
from isolatent_train.data.solids import SOLIDS, make
from isolatent_train.data.splits import DataError, Splits

EACH = 120
"""Solids per class."""

NOISE = 0.02
"""Standard deviation of a coordinate, in radii of the solid."""


def load(place: str, section: DataSection) -> Splits:
    """Make the solids and split them by class. Raises DataError on another place and where Open3D is not installed."""
    if place not in ("", "upright"):
        raise DataError(f"data 'shapes:{place}': write shapes, or shapes:upright")
    labels = np.repeat(np.arange(len(SOLIDS)), EACH)
    points = np.stack(
        [
            _cloud(name, section.points, np.random.default_rng([section.split_seed, label, index]), place == "upright")
            for label, name in enumerate(SOLIDS)
            for index in range(EACH)
        ]
    )
    data = labelled(points, labels, f"data {section.spec!r}", CLOUDS)
    return finish(section, *split(data, section), classes=tuple(SOLIDS))


def _cloud(name: str, count: int, rng: np.random.Generator, upright: bool) -> NDArray[np.float64]:
    """Points (count, 3) of one solid: sampled on its surface, noisy, turned."""
    vertices, triangles = make(name, rng)
    points = sample_surface(vertices, triangles, count, rng)
    assert points is not None  # solids have faces with areas
    radius = np.linalg.norm(points - points.mean(0), axis=1).max()
    points = points + NOISE * radius * rng.standard_normal(points.shape)
    turned: NDArray[np.float64] = points @ _orientation(rng, upright).T
    return turned


def _orientation(rng: np.random.Generator, upright: bool) -> NDArray[np.float64]:
    """A rotation (3, 3): of all equally likely ones, or of those about z."""
    w, x, y, z = rng.standard_normal(4) * ((1, 0, 0, 1) if upright else (1, 1, 1, 1))  # a quaternion
    axis, length = np.array([x, y, z]), np.sqrt(w * w + x * x + y * y + z * z)
    w, (x, y, z) = w / length, axis / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: NDArray[np.float64] = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    return turn
