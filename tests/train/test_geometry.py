"""Distances and neighbours agree with direct computation, gradients included."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from isolatent_train import geometry
from isolatent_train.geometry import chamfer_distance, covariances, nearest, pooled, squared_distances


def clouds(count: int = 3, points: int = 40, width: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, points, width, generator=torch.Generator().manual_seed(seed))


def test_squared_distances_are_those_of_cdist() -> None:
    left, right = clouds(), clouds(points=17, seed=1)
    torch.testing.assert_close(squared_distances(left, right), torch.cdist(left, right).square(), atol=1e-4, rtol=1e-4)


def test_clouds_far_from_the_origin_have_the_same_distances() -> None:
    near = clouds().double()
    far = (near + 4096).float()
    exact = torch.cdist(far.double(), far.double()).square()
    torch.testing.assert_close(squared_distances(far, far).double(), exact, atol=1e-4, rtol=1e-4)


def test_squared_distances_stay_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert squared_distances(clouds(), clouds(seed=1)).dtype == torch.float32


def test_nearest_are_those_that_a_tree_finds() -> None:
    points = clouds()
    places = nearest(points, 5).view(3, 40, 5)
    for index, cloud in enumerate(points):
        expected = cKDTree(cloud.numpy()).query(cloud.numpy(), 5)[1]
        assert torch.equal((places[index] - 40 * index).sort(1).values, torch.from_numpy(expected).sort(1).values)


@pytest.mark.parametrize("keys_in_cache", [2**19, 1])  # all clouds at once, one after the other
def test_pooling_while_training_is_pooling_and_has_its_gradient(
    keys_in_cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometry, "KEYS_IN_CACHE", keys_in_cache)
    features = clouds(width=6).requires_grad_()
    places = nearest(clouds(), 7)
    plain = features.flatten(0, 1)[places].view(3, 40, 7, 6).amax(2)
    for training in (True, False):
        found = pooled(features, places, 7, training=training)
        assert torch.equal(found, plain)
        (got,) = torch.autograd.grad((found * clouds(width=6, seed=2)).sum(), features, retain_graph=True)
        (expected,) = torch.autograd.grad((plain * clouds(width=6, seed=2)).sum(), features, retain_graph=True)
        torch.testing.assert_close(got, expected)


def test_covariances_are_those_of_each_neighbourhood() -> None:
    points = clouds()
    places = nearest(points, 8)
    found = covariances(points, places, 8)
    direct = torch.cov(points.flatten(0, 1)[places.view(-1, 8)[50]].T, correction=0)
    expected = direct[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    torch.testing.assert_close(found.flatten(0, 1)[50], expected)


def test_chamfer_distance_sums_both_mean_squared_nearest_distances() -> None:
    left, right = clouds(count=2), clouds(count=2, points=25, seed=1)
    found = chamfer_distance(left, right)
    for index in range(2):
        there = cKDTree(right[index].numpy()).query(left[index].numpy())[0]
        back = cKDTree(left[index].numpy()).query(right[index].numpy())[0]
        assert float(found[index]) == pytest.approx((there**2).mean() + (back**2).mean(), rel=1e-5)


def test_chamfer_distance_of_a_cloud_to_itself_is_zero_in_any_order() -> None:
    points = clouds() + 100  # far from the origin, where products lose digits
    assert float(chamfer_distance(points, points.flip(1)).max()) == 0


def test_the_gradient_of_the_chamfer_distance_is_that_of_its_definition() -> None:
    left, right = clouds(count=1, points=9).double().requires_grad_(), clouds(count=1, points=7, seed=1).double()
    assert torch.autograd.gradcheck(lambda points: chamfer_distance(points, right), (left,))
