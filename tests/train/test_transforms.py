"""Transformations of images: right direction, own parameters per image, seeded; presets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from isolatent_train.transforms import Affine, ColourJitter, Crop, Flip, Transforms, require_modality, transform
from isolatent_train.transforms.presets import CLOUDS, IMAGES, PRESETS


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def written_out(preset: str) -> Any:
    return TypeAdapter(Transforms).validate_python(preset)


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


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = torch.rand(400, 1, 4, 4, generator=generator())
    flipped = Flip()(images, generator())
    mirrored = (flipped == images.flip(3)).all(dim=(1, 2, 3))
    assert 150 < mirrored.sum() < 250
    assert torch.equal(flipped[~mirrored], images[~mirrored])


def test_crop_of_the_whole_picture_changes_nothing() -> None:
    images = torch.rand(3, 3, 8, 6)
    torch.testing.assert_close(Crop(area=1, stretch=1)(images, generator()), images, atol=1e-5, rtol=0)


def test_crop_enlarges_a_part_that_lies_inside() -> None:
    ramp = torch.linspace(0, 1, 32).expand(50, 1, 32, 32)
    cropped = Crop(area=0.3)(ramp, generator())
    width = cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]
    assert width.min() < 0.75
    assert width.max() <= 1
    assert (cropped[:, 0, 0, 0] > 0.05).any()


def test_colour_jitter_of_strength_zero_changes_nothing() -> None:
    images = torch.rand(3, 3, 8, 6)
    still = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0)
    torch.testing.assert_close(still(images, generator()), images, atol=1e-5, rtol=0)


def test_hue_keeps_grey_and_the_luma_of_colours() -> None:
    hue = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0.5)
    grey = torch.full((1, 3, 2, 2), 0.5)
    torch.testing.assert_close(hue(grey, generator()), grey, atol=1e-4, rtol=0)
    colour = 0.4 + 0.2 * torch.rand(5, 3, 2, 2, generator=generator())
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    turned = hue(colour, generator())
    assert not torch.allclose(turned, colour, atol=0.02)
    torch.testing.assert_close((turned * luma).sum(1), (colour * luma).sum(1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", ["none", *IMAGES])
def test_every_preset_of_images_keeps_shape_and_range(preset: str, channels: int) -> None:
    images = torch.rand(4, channels, 12, 16)
    views = transform(images, written_out(preset), generator())
    assert views.shape == images.shape
    assert -1e-5 <= views.min() <= views.max() <= 1 + 1e-5


def test_the_draws_are_those_of_an_earlier_version() -> None:
    images = torch.linspace(0, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    views = [each(images, generator(5)) for each in (Affine(), Crop(), ColourJitter(), Flip())]
    products = [(view[0] * images[0]).double().sum().item() for view in views]
    assert products == pytest.approx([13.0614287, 15.6342910, 21.2761213, 15.9582250], rel=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_one_modality_or_is_empty(preset: str) -> None:
    require_modality(written_out(preset), "point_cloud" if preset in CLOUDS else "image")


def test_transformations_of_another_modality_are_refused_with_those_that_fit() -> None:
    with pytest.raises(ValueError, match=r"'affine' is for inputs of modality image, .* fit are rotate, .* cloud-any"):
        require_modality(written_out("paper"), "point_cloud")
    with pytest.raises(ValueError, match=r"'rotate' is for .* fit are affine, flip, .* presets are none, paper"):
        require_modality(written_out("cloud"), "image")
