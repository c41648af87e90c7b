"""Single transformations by an exact strength, per modality: what consistency curves are drawn over.

A new curve is one function and one more entry in `KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isolatent_train.streams import stream
from isolatent_train.transforms import Affine, Dropout, Jitter, Occlude, Rotate, Transform

Direction = tuple[float, float]

_BOTH_WAYS: tuple[Direction, ...] = ((1, 0), (-1, 0))
_ALL_SIDES: tuple[Direction, ...] = ((1, 0), (-1, 0), (0, 1), (0, -1))
_ONCE: tuple[Direction, ...] = ((1, 0),)

DRAWS_SEED = 1959


@dataclass(frozen=True)
class Kind:
    """One transformation: its unit, the strengths measured, the directions each is applied in, and what it does."""

    unit: str
    strengths: tuple[float, ...]
    directions: tuple[Direction, ...]
    move: Callable[[Tensor, float, Direction, Sequence[Transform]], Tensor]
    """Inputs as networks take them, strength, direction, the model's own transformations -> displaced inputs."""
    setting: Callable[[Transform], float | None]
    """The strength that one configured transformation trains with, if it is of this kind."""


def _affine(
    images: Tensor, transforms: Sequence[Transform], *, angle: float = 0, shift: Direction = (0, 0), scale: float = 1
) -> Tensor:
    """Images (B, C, H, W) turned, moved and resized alike, padded as the configured transformation does."""
    padding = next((each for each in transforms if isinstance(each, Affine)), Affine())
    count, device = len(images), images.device
    return padding.apply(
        images,
        angle=torch.full((count,), float(math.radians(angle)), device=device),
        shift=torch.tensor([shift], dtype=torch.float32, device=device).expand(count, 2),
        scale=torch.full((count,), float(scale), device=device),
    )


def _turn_image(images: Tensor, strength: float, direction: Direction, transforms: Sequence[Transform]) -> Tensor:
    return _affine(images, transforms, angle=strength * direction[0])


def _shift_image(images: Tensor, strength: float, direction: Direction, transforms: Sequence[Transform]) -> Tensor:
    return _affine(images, transforms, shift=(strength * direction[0], strength * direction[1]))


def _resize_image(images: Tensor, strength: float, direction: Direction, transforms: Sequence[Transform]) -> Tensor:
    return _affine(images, transforms, scale=1 + strength * direction[0])


def _turn_cloud(points: Tensor, strength: float, direction: Direction, _: Sequence[Transform]) -> Tensor:
    return _turned(points, strength * direction[0], (0, 0, 1))


def _tilt_cloud(points: Tensor, strength: float, direction: Direction, _: Sequence[Transform]) -> Tensor:
    return _turned(points, strength, (*direction, 0))


def _turned(points: Tensor, degrees: float, axis: tuple[float, float, float]) -> Tensor:
    angle = torch.full((len(points),), math.radians(degrees), device=points.device)
    return Rotate.apply(
        points, axis=torch.tensor([axis], dtype=torch.float32, device=points.device).expand(len(points), 3), angle=angle
    )


def _jitter_cloud(points: Tensor, strength: float, _: Direction, __: Sequence[Transform]) -> Tensor:
    return Jitter.apply(points, _draws(points), sigma=strength, clip=2 * strength)


def _thin_cloud(points: Tensor, strength: float, _: Direction, __: Sequence[Transform]) -> Tensor:
    return Dropout.apply(points, _draws(points), fraction=torch.full((len(points),), strength, device=points.device))


def _occlude_cloud(points: Tensor, strength: float, direction: Direction, _: Sequence[Transform]) -> Tensor:
    count, device = len(points), points.device
    fraction, side = torch.full((count,), strength, device=device), torch.tensor([[*direction, 0.0]], device=device)
    return Occlude.apply(points, _draws(points), fraction=fraction, direction=side.expand(count, 3))


def _draws(points: Tensor) -> torch.Generator:
    return stream(DRAWS_SEED, "displacement", 0, points.device)


def _affine_setting(name: str) -> Callable[[Transform], float | None]:
    return lambda each: float(getattr(each, name)) if isinstance(each, Affine) else None


KINDS: dict[str, dict[str, Kind]] = {
    "image": {
        "rotation": Kind(
            "degrees", (5, 10, 15, 20, 25, 30, 35, 40, 45), _BOTH_WAYS, _turn_image, _affine_setting("rotation")
        ),
        "translation": Kind(
            "fraction of the side",
            (0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
            _ALL_SIDES,
            _shift_image,
            _affine_setting("translation"),
        ),
        "scale": Kind(
            "change of size, fraction",
            (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
            _BOTH_WAYS,
            _resize_image,
            _affine_setting("scale"),
        ),
    },
    "point_cloud": {
        "rotation": Kind(
            "degrees about z",
            (5, 10, 15, 30, 45, 90, 180),
            _BOTH_WAYS,
            _turn_cloud,
            lambda each: each.degrees if isinstance(each, Rotate) and each.axis in ("z", "any") else None,
        ),
        "tilt": Kind(
            "degrees about x and y",
            (5, 10, 15, 30, 45),
            ((1, 0), (0, 1)),
            _tilt_cloud,
            lambda each: each.degrees if isinstance(each, Rotate) and each.axis != "z" else None,
        ),
        "jitter": Kind(
            "standard deviation, radius 1",
            (0.005, 0.01, 0.02, 0.03, 0.05),
            _ONCE,
            _jitter_cloud,
            lambda each: each.sigma if isinstance(each, Jitter) else None,
        ),
        "dropout": Kind(
            "fraction of the points lost",
            (0.1, 0.25, 0.5, 0.75, 0.9),
            _ONCE,
            _thin_cloud,
            lambda each: each.fraction if isinstance(each, Dropout) else None,
        ),
        "occlusion": Kind(
            "fraction hidden on one side",
            (0.1, 0.2, 0.3, 0.4, 0.5),
            _BOTH_WAYS,
            _occlude_cloud,
            lambda each: each.fraction if isinstance(each, Occlude) else None,
        ),
    },
}
"""Modality -> name of a curve -> what it is."""
