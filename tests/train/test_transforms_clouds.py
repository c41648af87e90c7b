"""Transformations of point clouds: right direction and strength, own parameters per cloud, seeded."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from isolatent_train.transforms import (
    Dropout,
    Jitter,
    Mirror,
    Occlude,
    Permute,
    Rotate,
    Scale,
    Transforms,
    Translate,
    transform,
)
from isolatent_train.transforms.presets import CLOUDS

STILL = [
    *(Rotate(degrees=0), Rotate(degrees=0, axis="any"), Scale(low=1, high=1), Translate(distance=0)),
    *(Jitter(sigma=0), Dropout(fraction=0), Occlude(fraction=0), Mirror(probability=0), Mirror(axes=())),
    Permute(probability=0),
]
MOVING = [Rotate(), Rotate(axis="any"), Scale(), Scale(per_axis=True), Translate(), Jitter(), Dropout(), Occlude()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clouds(count: int = 4, points: int = 64) -> Tensor:
    return torch.randn(count, points, 3, generator=generator(9))


def kept(views: Tensor, originals: Tensor) -> Tensor:
    """Share of each cloud's points that its view still has, (B,)."""
    pairs = (views[:, None] == originals[:, :, None]).all(3)  # (B, original, view)
    return pairs.any(2).float().mean(1)


@pytest.mark.parametrize("still", STILL, ids=repr)
def test_strength_zero_changes_nothing(still: Any) -> None:
    torch.testing.assert_close(still(clouds(), generator()), clouds(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("moving", MOVING, ids=repr)
def test_each_cloud_gets_parameters_of_its_own_and_the_generator_decides(moving: Any) -> None:
    same = clouds(1).expand(6, -1, -1)
    views = moving(same, generator(3))
    assert views.shape == same.shape
    assert views.dtype == torch.float32
    assert len({view.numpy().tobytes() for view in views}) >= 5  # a drawn share may be none
    assert torch.equal(views, moving(same, generator(3)))
    assert not torch.equal(views, moving(same, generator(4)))


@pytest.mark.parametrize("preset", CLOUDS)
def test_every_preset_keeps_shape_and_stays_finite(preset: str) -> None:
    views = transform(clouds(), TypeAdapter(Transforms).validate_python(preset), generator())
    assert views.shape == (4, 64, 3)
    assert bool(views.isfinite().all())
    assert not torch.equal(views, clouds())


def test_positive_angles_turn_counter_clockwise_about_the_axis() -> None:
    x, y, z = torch.eye(3).view(3, 1, 1, 3)
    for axis, start, end in ((z, x, y), (x, y, z), (y, z, x)):
        turned = Rotate.apply(start, axis=3 * axis[0], angle=torch.tensor([math.pi / 2]))
        torch.testing.assert_close(turned, end, atol=1e-6, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotation_about_an_axis_keeps_coordinates_along_it_and_distances(axis: int) -> None:
    turned = Rotate.model_validate({"axis": "xyz"[axis]})(clouds(), generator())
    torch.testing.assert_close(turned[..., axis], clouds()[..., axis], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cdist(turned, turned), torch.cdist(clouds(), clouds()), atol=2e-3, rtol=0)


def turned_by(rotate: Rotate, count: int = 4000) -> tuple[Tensor, Tensor]:
    """Rotation matrices (B, 3, 3) and their angles in degrees (B,)."""
    matrices = rotate(torch.eye(3).expand(count, 3, 3), generator()).transpose(1, 2)
    cos = (matrices.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    return matrices, cos.clamp(-1, 1).acos().rad2deg()


def test_rotations_about_any_axis_stay_below_the_largest_angle() -> None:
    matrices, angles = turned_by(Rotate(axis="any", degrees=15))
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(4000), atol=1e-5, rtol=0)
    assert 14.5 < angles.max() < 15.1
    assert 11 < angles.mean() < 11.5  # of uniform rotations by small angles: three quarters of the largest


def test_rotations_by_up_to_180_degrees_are_uniform() -> None:
    matrices, angles = turned_by(Rotate(axis="any"))
    assert matrices.mean(0).abs().max() < 0.03  # every direction goes everywhere
    assert abs(angles.mean() - 126.5) < 2  # 90 + 360 / pi²


def test_scale_is_one_factor_per_cloud_or_one_per_axis() -> None:
    factors = Scale()(clouds(500), generator()) / clouds(500)
    assert factors.std((1, 2)).max() < 1e-5
    assert 0.666 < factors.min() < 0.7
    assert 1.45 < factors.max() < 1.501
    stretched = Scale(per_axis=True)(clouds(500), generator()) / clouds(500)
    assert stretched.std(1).max() < 1e-5
    assert stretched.std(2).min() > 1e-4


def test_translation_moves_every_point_of_a_cloud_alike() -> None:
    shifts = Translate(distance=0.2)(clouds(500), generator()) - clouds(500)
    assert shifts.std(1).max() < 1e-5
    assert 0.19 < shifts.abs().max() < 0.2001


def test_jitter_has_the_given_deviation_and_is_clipped() -> None:
    noise = Jitter.apply(clouds(50), generator(), sigma=0.01, clip=1) - clouds(50)
    assert abs(noise.std() - 0.01) < 2e-4
    assert (Jitter()(clouds(50), generator()) - clouds(50)).abs().max() < 0.0201


def test_dropout_keeps_the_exact_share_in_place_and_repeats_it() -> None:
    views = Dropout.apply(clouds(), generator(), fraction=torch.tensor([0.0, 0.25, 0.5, 0.999]))
    assert kept(views, clouds()).tolist() == [1, 0.75, 0.5, 1 / 64]
    assert (views == clouds()).all(2).float().mean(1).tolist() == [1, 0.75, 0.5, 1 / 64]
    assert kept(clouds(), views).tolist() == [1, 1, 1, 1]  # the others are copies


def test_dropout_draws_shares_up_to_the_largest() -> None:
    shares = 1 - kept(Dropout(fraction=0.5)(clouds(200), generator()), clouds(200))
    assert 0.2 < shares.mean() < 0.3
    assert shares.max() <= 0.5


def test_dropped_points_are_replaced_by_any_of_the_others() -> None:
    ramp = torch.arange(1000.0).view(1, 1000, 1).expand(1, 1000, 3)
    view = Dropout.apply(ramp, generator(), fraction=torch.tensor([0.5]))
    copies = view[view != ramp]
    assert 450 < copies.mean() < 550


def test_occlusion_takes_away_all_that_lies_beyond_a_plane() -> None:
    view = Occlude.apply(
        clouds(1), generator(), fraction=torch.tensor([0.25]), direction=torch.tensor([[0.0, 2.0, 0.0]])
    )
    limit = clouds(1)[0, :, 1].sort().values[47]
    assert view[0, :, 1].max() == limit
    assert kept(view, clouds(1)).tolist() == [0.75]


def test_mirroring_flips_the_allowed_axes_about_every_other_time() -> None:
    signs = Mirror(axes=("x", "z"))(torch.ones(400, 8, 3), generator())
    assert signs.std(1).max() == 0
    x, y, z = signs[:, 0].T
    assert y.unique().tolist() == [1]
    assert x.abs().unique().tolist() == [1]
    assert abs(x.mean()) < 0.15
    assert abs((x * z).mean()) < 0.15  # each on its own


def test_permutation_exchanges_axes_in_every_order_alike() -> None:
    axes = torch.tensor([1.0, 2.0, 3.0]).expand(600, 8, 3)
    orders, counts = Permute()(axes, generator())[:, 0].unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 70


@pytest.mark.parametrize(
    "values",
    [
        *({"kind": "rotate", "degrees": 200}, {"kind": "scale", "low": 1.2}, {"kind": "dropout", "fraction": 1}),
        *({"kind": "jitter", "clip": 0}, {"kind": "mirror", "axes": ["w"]}, {"kind": "translate", "sigma": 1}),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Transforms).validate_python([values])
