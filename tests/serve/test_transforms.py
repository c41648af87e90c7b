"""The transformations in NumPy against those that train, with the same parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isolatent_serve import transforms as ours
from isolatent_serve.transforms import Transform, Unavailable, read, transform

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("isolatent_train.transforms")

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="session")
def images() -> Array:
    """Three colour images (3, 12, 20, 3) in 0..1."""
    return np.random.default_rng(0).random((3, 12, 20, 3), np.float32)


@pytest.fixture(scope="session")
def points() -> Array:
    """Three clouds (3, 50, 3)."""
    return np.random.default_rng(1).normal(size=(3, 50, 3)).astype(np.float32)


def as_torch(images: Array) -> Any:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def as_numpy(images: Any) -> Array:
    array: Array = images.numpy().transpose(0, 2, 3, 1)
    return array


def same(value: Any, count: int = 3) -> Any:
    """A parameter for each of the items, all alike."""
    tensor = torch.as_tensor(np.asarray(value, np.float32))
    return tensor.expand(count, *tensor.shape)


def drawn(monkeypatch: pytest.MonkeyPatch, name: str, *values: Any) -> None:
    """Let the torch function `name` give these draws, each for all items alike."""
    left = list(values)

    def draw(*_: Any, **__: Any) -> Any:
        return left.pop(0)

    monkeypatch.setattr(torch, name, draw)


@pytest.mark.parametrize("padding", ["zeros", "edge", "reflect"])
@pytest.mark.parametrize(
    ("degrees", "shift", "scale"),
    [
        (0, (0, 0), 1),
        (15, (0.07, -0.05), 0.9),
        (-30, (0.0, 0.1), 1.25),
        (170, (1.0, -1.0), 0.3),
        (90, (-0.4, 0.9), 1.9),
    ],
)
def test_affine(images: Array, padding: str, degrees: float, shift: tuple[float, float], scale: float) -> None:
    angle = math.radians(degrees)
    expected = theirs.Affine(padding=padding).apply(
        as_torch(images), angle=same(angle), shift=same(shift), scale=same(scale)
    )
    got = ours.Affine(padding=padding).apply(images, angle=angle, shift=shift, scale=scale)  # type: ignore[arg-type]
    np.testing.assert_allclose(got, as_numpy(expected), atol=1e-4)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_flip(images: Array, probability: float) -> None:
    expected = theirs.Flip(probability=probability)(as_torch(images), torch.Generator())
    got = ours.Flip(probability=probability)(images, np.random.default_rng(0))
    assert np.array_equal(got, as_numpy(expected))


@pytest.mark.parametrize("draws", [(0.0, 0.5, 0.0, 1.0), (0.3, 0.9, 0.2, 0.7), (1.0, 0.0, 0.5, 0.5)])
def test_crop(images: Array, draws: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(monkeypatch, "rand", torch.tensor(draws)[:, None].expand(4, 3))
    expected = theirs.Crop(area=0.4, stretch=1.5)(as_torch(images), None)
    got = ours.Crop(area=0.4, stretch=1.5).apply(images, draws=np.array(draws))
    np.testing.assert_allclose(got, as_numpy(expected), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("draws", [(0.0, 0.0, 0.0, 0.0), (0.5, -0.5, 0.9, -0.8), (-1.0, 1.0, 1.0, 1.0)])
def test_colour_jitter(images: Array, channels: int, draws: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    part = images[..., :channels]
    strengths: dict[str, Any] = {"brightness": 0.3, "contrast": 0.4, "saturation": 0.5, "hue": 0.2}
    drawn(monkeypatch, "rand", (torch.tensor(draws)[:, None].expand(4, 3)[..., None, None, None] + 1) / 2)
    expected = theirs.ColourJitter(**strengths)(as_torch(part), None)
    got = ours.ColourJitter(**strengths).apply(part, draws=np.array(draws))
    np.testing.assert_allclose(got, as_numpy(expected), atol=1e-4)


def near(got: Array, expected: Any) -> None:
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("axis", "angle"), [((0, 0, 1), 0.5), ((1, 2, -3), -2.0), ((0, -1, 0), math.pi)])
def test_rotate(points: Array, axis: tuple[float, ...], angle: float) -> None:
    expected = theirs.Rotate.apply(torch.from_numpy(points), axis=same(axis), angle=same(angle))
    near(ours.Rotate.apply(points, axis=np.array(axis), angle=angle), expected)


@pytest.mark.parametrize("factor", [(0.7, 0.7, 0.7), (1.5, 0.8, 1.0)])
def test_scale(points: Array, factor: tuple[float, ...]) -> None:
    expected = theirs.Scale.apply(torch.from_numpy(points), factor=same(factor))
    near(ours.Scale.apply(points, factor=np.array(factor)), expected)


def test_translate(points: Array) -> None:
    shift = (0.1, -0.2, 0.05)
    near(
        ours.Translate.apply(points, shift=np.array(shift)),
        theirs.Translate.apply(torch.from_numpy(points), shift=same(shift)),
    )


def test_mirror(points: Array) -> None:
    signs = (1, -1, -1)
    near(
        ours.Mirror.apply(points, signs=np.array(signs)),
        theirs.Mirror.apply(torch.from_numpy(points), signs=same(signs)),
    )


def test_permute(points: Array) -> None:
    order = torch.tensor([2, 0, 1]).expand(3, 3)
    near(
        ours.Permute.apply(points, order=np.array([2, 0, 1])),
        theirs.Permute.apply(torch.from_numpy(points), order=order),
    )


def test_jitter(points: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(2).normal(size=(50, 3)).astype(np.float32)
    drawn(monkeypatch, "randn", torch.from_numpy(noise))
    expected = theirs.Jitter.apply(torch.from_numpy(points), None, sigma=0.05, clip=0.06)
    near(ours.Jitter(sigma=0.05, clip=0.06).apply(points, noise=noise), expected)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.995])
def test_dropout_and_occlusion(points: Array, fraction: float, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, draws = np.random.default_rng(3).random((2, 50), np.float32)
    clouds, share, direction = torch.from_numpy(points), same(fraction), (1.0, -0.5, 0.25)
    drawn(monkeypatch, "rand", same(scores), same(draws), same(draws))
    expected = theirs.Dropout.apply(clouds, None, fraction=share)
    near(ours.Dropout.apply(points, fraction=fraction, scores=scores, draws=draws), expected)
    expected = theirs.Occlude.apply(clouds, None, fraction=share, direction=same(direction))
    near(ours.Occlude.apply(points, fraction=fraction, direction=np.array(direction), draws=draws), expected)


@pytest.mark.parametrize("modality", ["image", "point_cloud"])
def test_every_kind_that_trains_is_here_with_the_same_members(modality: str) -> None:
    for kind in theirs.kinds(modality).values():
        written = kind().model_dump(mode="json")
        (found,) = read([written], modality)
        assert found.model_dump(mode="json") == written


@pytest.mark.parametrize("preset", theirs.PRESETS)
def test_every_preset_keeps_shape_and_type(preset: str, images: Array, points: Array) -> None:
    entries = theirs.PRESETS[preset]
    is_cloud = any(entry["kind"] in theirs.kinds("point_cloud") for entry in entries)
    items = points if is_cloud else (images * 255).astype(np.uint8)
    moved = transform(items, read(entries, "point_cloud" if is_cloud else "image"), np.random.default_rng(0))
    assert (moved.shape, str(moved.dtype), moved.flags.c_contiguous) == (items.shape, str(items.dtype), True)
    assert np.array_equal(moved, items) == (not entries)


@pytest.mark.parametrize("entry", [{"kind": "warp"}, {}, {"kind": "rotate"}, {"kind": "flip", "probability": 2}])
def test_what_is_not_here_is_named(entry: dict[str, Any]) -> None:
    with pytest.raises(Unavailable, match=repr(entry.get("kind"))):
        read([{"kind": "flip"}, entry], "image")


@pytest.mark.parametrize("largest", [math.pi, 0.5, 0.0])
def test_angles_about_any_axis_follow_the_same_law(largest: float) -> None:
    from isolatent_serve.transforms.rotate import _angle
    from isolatent_train.transforms.rotate import _uniform_angles

    draws = np.linspace(0, 1, 11, dtype=np.float32)
    angle: Callable[[float, float], float] = _angle
    got = [angle(float(draw), largest) for draw in draws]
    np.testing.assert_allclose(got, _uniform_angles(torch.from_numpy(draws), largest).numpy(), atol=1e-5)


def test_every_item_gets_the_same_draw(points: Array) -> None:
    chain: tuple[Transform, ...] = read(theirs.PRESETS["cloud-any"], "point_cloud")
    together = transform(points, chain, np.random.default_rng(4))
    alone = [transform(points[row : row + 1], chain, np.random.default_rng(4))[0] for row in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-6)
