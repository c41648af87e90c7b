"""Affine transformations: right direction, own parameters per image, seeded."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isolatent_train.transforms import Affine, transform


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dot(row: int, column: int, height: int = 9, width: int = 9) -> Tensor:
    image = torch.zeros(1, 1, height, width)
    image[0, 0, row, column] = 1
    return image


def applied(image: Tensor, *, degrees: float = 0, shift: tuple[float, float] = (0, 0), scale: float = 1) -> Tensor:
    angle = torch.tensor([math.radians(degrees)])
    return Affine().apply(image, angle=angle, shift=torch.tensor([shift]).float(), scale=torch.tensor([scale]).float())


def brightest(image: Tensor) -> tuple[int, int]:
    row, column = divmod(int(image[0, 0].argmax()), image.shape[3])
    return row, column


def test_strength_zero_changes_nothing() -> None:
    images = torch.rand(3, 1, 9, 7)
    still = Affine(rotation=0, translation=0, scale=0)(images, generator())
    torch.testing.assert_close(still, images, atol=1e-5, rtol=0)


def test_positive_angles_turn_counter_clockwise() -> None:
    assert brightest(applied(dot(4, 8), degrees=90)) == (0, 4)  # right goes to the top


def test_a_quarter_turn_in_a_wide_frame_keeps_pixels_square() -> None:
    assert brightest(applied(dot(4, 10, 9, 15), degrees=90)) == (1, 7)  # 3 right of the centre goes to 3 above it


def test_shift_moves_right_and_down_by_fractions_of_the_side() -> None:
    assert brightest(applied(dot(4, 4), shift=(2 / 9, 1 / 9))) == (5, 6)


def test_shift_is_not_turned_with_the_image() -> None:
    assert brightest(applied(dot(4, 4), degrees=90, shift=(2 / 9, 0))) == (4, 6)


def test_scale_above_one_enlarges() -> None:
    assert brightest(applied(dot(4, 6), scale=1.5)) == (4, 7)


def test_each_image_gets_parameters_of_its_own() -> None:
    same = torch.rand(1, 1, 16, 16).expand(4, -1, -1, -1)
    views = Affine()(same, generator())
    assert len({view.sum().item() for view in views}) == 4


def test_the_generator_decides() -> None:
    images = torch.rand(4, 1, 16, 16)
    first = transform(images, (Affine(),), generator(3))
    assert torch.equal(first, transform(images, (Affine(),), generator(3)))
    assert not torch.equal(first, transform(images, (Affine(),), generator(4)))


@pytest.mark.parametrize(("padding", "corner"), [("zeros", 0.0), ("edge", 1.0), ("reflect", 1.0)])
def test_padding_decides_what_comes_in_from_outside(padding: str, corner: float) -> None:
    view = Affine.model_validate({"padding": padding}).apply(
        torch.ones(1, 1, 8, 8), angle=torch.zeros(1), shift=torch.tensor([[0.5, 0.0]]), scale=torch.ones(1)
    )
    assert view[0, 0, 0, 0].item() == corner
