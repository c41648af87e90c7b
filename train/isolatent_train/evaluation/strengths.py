"""Consistency against the strength of one transformation at a time: rotation, translation, scale.

Strengths are exact, not drawn: every image is transformed by just that much in each direction (both ways round, to all
four sides, smaller and larger), and the figures are means over the directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from isolatent_train.evaluation.consistency import found, ratio
from isolatent_train.evaluation.encoding import others, posteriors
from isolatent_train.models import VAE
from isolatent_train.transforms import Affine, Transform

EXAMPLES = 2000
"""Test images that the curves are computed from: the first so many."""


@dataclass(frozen=True)
class Kind:
    """One transformation: its unit, the strengths measured, and the directions each is applied in."""

    unit: str
    strengths: tuple[float, ...]
    directions: tuple[tuple[float, float], ...]


KINDS = {
    "rotation": Kind("degrees", (5, 10, 15, 20, 25, 30, 35, 40, 45), ((1, 0), (-1, 0))),
    "translation": Kind(
        "fraction of the side", (0.025, 0.05, 0.075, 0.1, 0.15, 0.2), ((1, 0), (-1, 0), (0, 1), (0, -1))
    ),
    "scale": Kind("change of size, fraction", (0.05, 0.1, 0.15, 0.2, 0.25, 0.3), ((1, 0), (-1, 0))),
}


@dataclass(frozen=True)
class Movement:
    """How far the posteriors of N images move at one strength, means over the directions."""

    strength: float
    kl: Tensor
    """KL(q(z|x~) || q(z|x)) per image, nats (N,)."""
    w2: Tensor
    """Squared 2-Wasserstein distance per image (N,)."""
    found: Tensor
    """Fraction of the directions in which the nearest original is the image's own (N,)."""


def consistency_by_strength(model: VAE, pixels: Tensor, transforms: Sequence[Transform]) -> dict[str, Any]:
    """Per kind: `unit`, `strengths` and, one value per strength, `kl`, `kl_normalized`, `w2_normalized`,
    `retrieval_top1`. From the first 2,000 of the pixels (N, H, W, C); `transforms` decide what comes in at the edges.
    """
    pixels = pixels[:EXAMPLES]
    original = posteriors(model, pixels)
    strangers = others(original)
    kl, w2 = strangers.kl(original).mean(), strangers.wasserstein2(original).mean()
    curves: dict[str, Any] = {"examples": len(pixels)}
    for name, kind in KINDS.items():
        moved = movements(model, pixels, name, kind.strengths, padding_of(transforms))
        curves[name] = {
            "unit": kind.unit,
            "strengths": list(kind.strengths),
            "kl": [float(each.kl.mean()) for each in moved],
            "kl_normalized": [ratio(each.kl.mean(), kl) for each in moved],
            "w2_normalized": [ratio(each.w2.mean(), w2) for each in moved],
            "retrieval_top1": [float(each.found.mean()) for each in moved],
        }
    return curves


def movements(
    model: VAE, pixels: Tensor, kind: str, strengths: Sequence[float], padding: Affine = Affine()
) -> list[Movement]:
    """How far the posteriors of pixels (N, H, W, C) move under one kind of transformation, per strength."""
    original = posteriors(model, pixels)
    results = []
    for strength in strengths:
        views = [
            partial(displaced, kind=kind, strength=strength, direction=direction, padding=padding)
            for direction in KINDS[kind].directions
        ]
        copies = [posteriors(model, pixels, prepare=view) for view in views]
        kl = torch.stack([copy.kl(original) for copy in copies]).mean(0)
        w2 = torch.stack([copy.wasserstein2(original) for copy in copies]).mean(0)
        results.append(Movement(strength, kl, w2, torch.stack([found(copy, original) for copy in copies]).mean(0)))
    return results


def displaced(
    images: Tensor, kind: str, strength: float, direction: tuple[float, float] = (1, 0), padding: Affine = Affine()
) -> Tensor:
    """Images (B, C, H, W) turned by `strength` degrees, moved by that fraction of the side or resized by 1 ± it."""
    count, device = len(images), images.device
    right, down = (strength * part for part in direction)
    angle = math.radians(right) if kind == "rotation" else 0.0
    shift = (right, down) if kind == "translation" else (0.0, 0.0)
    scale = 1 + right if kind == "scale" else 1.0
    return padding.apply(
        images,
        angle=torch.full((count,), angle, device=device),
        shift=torch.tensor([shift], device=device).expand(count, 2),
        scale=torch.full((count,), scale, device=device),
    )


def padding_of(transforms: Sequence[Transform]) -> Affine:
    """An affine transformation that pads as the configured one does, the default where none is configured."""
    return next((each for each in transforms if isinstance(each, Affine)), Affine())
