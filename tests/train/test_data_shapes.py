"""The built-in solids: 13 classes, every one different, the same for the same seed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from data_support import items, load
from isolatent_train.data import DataError, shapes, solids

pytest.importorskip("open3d", reason="the extra `shapes` is not installed")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "EACH", 10)


@pytest.mark.usefixtures("few")
def test_parts_are_drawn_by_class_and_every_solid_differs() -> None:
    splits = load("shapes", points=64)
    assert splits.counts() == {"train": 91, "validation": 13, "test": 26}
    assert splits.spec.shape == (64, 3)
    assert splits.classes == tuple(sorted(solids.SOLIDS))
    assert splits.test.labels is not None
    assert splits.test.labels.bincount().tolist() == [2] * 13
    assert len(set(items(splits))) == 130


@pytest.mark.usefixtures("few")
def test_the_split_seed_decides_every_bit() -> None:
    first, again, other = (load("shapes", points=64, split_seed=seed) for seed in (3, 3, 4))
    assert first.fingerprint() == again.fingerprint()
    assert not set(items(first)) & set(items(other))


def test_the_whole_set_has_120_of_each() -> None:
    assert sum(load("shapes", points=32).counts().values()) == 1560


@pytest.mark.parametrize("name", solids.SOLIDS)
def test_solids_have_faces_with_area_and_proportions_of_their_own(name: str) -> None:
    (vertices, triangles), (others, _) = (solids.make(name, np.random.default_rng(seed)) for seed in (0, 1))
    corners = vertices[triangles]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    assert np.isfinite(vertices).all()
    assert areas.sum() > 0.5
    extents, different = np.ptp(vertices, axis=0), np.ptp(others, axis=0)
    assert not np.allclose(extents / extents.max(), different / different.max(), atol=1e-3)


def test_orientations_are_rotations_and_upright_ones_keep_z() -> None:
    rng = np.random.default_rng(0)
    turns = np.stack([shapes._orientation(rng, upright=False) for _ in range(2000)])
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    assert np.abs(turns.mean(0)).max() < 0.05
    assert np.allclose(shapes._orientation(rng, upright=True)[2], [0, 0, 1])


@pytest.mark.usefixtures("few")
def test_upright_solids_are_turned_about_z_only() -> None:
    splits = load("shapes:upright", points=512)
    assert splits.classes is not None
    assert splits.train.labels is not None
    cones = splits.train.inputs[splits.train.labels == splits.classes.index("cone")]
    high, low = cones[..., 2].amax(1), cones[..., 2].amin(1)
    assert bool((high > -low).all())  # the tip, far from the centre, is up


def test_another_place_is_refused() -> None:
    with pytest.raises(DataError, match="write shapes, or shapes:upright"):
        load("shapes:big")


def test_without_open3d_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    monkeypatch.setitem(sys.modules, "open3d.geometry", None)
    with pytest.raises(DataError, match=r'pip install "isolatent\[shapes\]".*apt-get install libgl1'):
        load("shapes")


@pytest.mark.usefixtures("few")
def test_points_are_normalised() -> None:
    inputs = load("shapes", points=64).train.inputs
    assert inputs.mean(1).abs().max() < 1e-6
    torch.testing.assert_close(inputs.norm(dim=2).amax(1), torch.ones(91), atol=1e-6, rtol=0)
