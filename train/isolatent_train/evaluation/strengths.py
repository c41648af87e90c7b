"""Consistency against the strength of one transformation at a time.

Strengths are exact, not drawn: every input is transformed by just that much in each direction (both ways round, to all
four sides, smaller and larger), and the figures are means over the directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from isolatent_train.evaluation.consistency import found, ratio
from isolatent_train.evaluation.displacements import KINDS, Direction, Kind
from isolatent_train.evaluation.encoding import others, posteriors
from isolatent_train.models import VAE
from isolatent_train.transforms import Transform

EXAMPLES = 2000
"""Test inputs that the curves are computed from: the first so many."""


@dataclass(frozen=True)
class Movement:
    """How far the posteriors of N inputs move at one strength, means over the directions."""

    strength: float
    kl: Tensor
    """KL(q(z|x~) || q(z|x)) per input, nats (N,)."""
    w2: Tensor
    """Squared 2-Wasserstein distance per input (N,)."""
    found: Tensor
    """Fraction of the directions in which the nearest original is the input's own (N,)."""


def consistency_by_strength(model: VAE, inputs: Tensor, transforms: Sequence[Transform]) -> dict[str, Any]:
    """Per kind of the model's modality: `unit`, `strengths` and, one value per strength, `kl`, `kl_normalized`,
    `w2_normalized`, `retrieval_top1`. From the first 2,000 of the inputs (N, ...) as stored; `transforms`, the model's
    own, decide what comes in at the edges of images.
    """
    inputs = inputs[:EXAMPLES]
    original = posteriors(model, inputs)
    strangers = others(original)
    kl, w2 = strangers.kl(original).mean(), strangers.wasserstein2(original).mean()
    curves: dict[str, Any] = {"examples": len(inputs)}
    for name, kind in KINDS[model.codec.modality].items():
        moved = movements(model, inputs, kind, kind.strengths, transforms)
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
    model: VAE, inputs: Tensor, kind: Kind, strengths: Sequence[float], transforms: Sequence[Transform] = ()
) -> list[Movement]:
    """How far the posteriors of inputs (N, ...) as stored move under one kind of transformation, per strength."""
    original = posteriors(model, inputs)
    results = []
    for strength in strengths:
        views = [partial(_moved, kind, strength, direction, transforms) for direction in kind.directions]
        copies = [posteriors(model, inputs, prepare=view) for view in views]
        kl = torch.stack([copy.kl(original) for copy in copies]).mean(0)
        w2 = torch.stack([copy.wasserstein2(original) for copy in copies]).mean(0)
        results.append(Movement(strength, kl, w2, torch.stack([found(copy, original) for copy in copies]).mean(0)))
    return results


def _moved(
    kind: Kind, strength: float, direction: Direction, transforms: Sequence[Transform], inputs: Tensor
) -> Tensor:
    return kind.move(inputs, strength, direction, transforms)
