"""How far posteriors move when their inputs are transformed, in itself and against the distance of strangers."""

from __future__ import annotations

import torch
from torch import Tensor

from isolatent_train.evaluation.encoding import others
from isolatent_train.posterior import DiagonalGaussian

DISTANCES = 2**23
"""Distances between posterior means held at once."""


def consistency(original: DiagonalGaussian, copies: list[DiagonalGaussian]) -> dict[str, float]:
    """Figures over N inputs and their transformed copies, each posterior (N, d).

    consistency_kl: mean KL(q(z|x~) || q(z|x)) in nats; consistency_w2: mean squared 2-Wasserstein distance; each also
    `_normalized`, divided by the same quantity between different inputs, because the latent scale itself can shrink
    (NaN where different inputs have the same posterior); retrieval_top1: how often the original nearest to a copy's
    posterior mean is its own.
    """
    strangers = others(original)
    kl = torch.stack([copy.kl(original) for copy in copies]).mean()
    w2 = torch.stack([copy.wasserstein2(original) for copy in copies]).mean()
    return {
        "consistency_kl": float(kl),
        "consistency_kl_normalized": ratio(kl, strangers.kl(original).mean()),
        "consistency_w2": float(w2),
        "consistency_w2_normalized": ratio(w2, strangers.wasserstein2(original).mean()),
        "retrieval_top1": float(torch.stack([found(copy, original) for copy in copies]).mean()),
    }


def found(copy: DiagonalGaussian, original: DiagonalGaussian, *, rows: int | None = None) -> Tensor:
    """1 where the original mean (N, d) nearest to a copy's is its own, else 0: (N,) float. `rows` at a time.

    Around the common centre: distances come from squares, which far from 0 are too large to tell neighbours apart.
    """
    rows = rows or max(1, DISTANCES // len(original.mean))
    centre = original.mean.mean(0)
    means = original.mean - centre
    nearest = torch.cat([torch.cdist(part - centre, means).argmin(1) for part in copy.mean.split(rows)])
    return (nearest == torch.arange(len(nearest), device=nearest.device)).float()


def ratio(moved: Tensor, strangers: Tensor) -> float:
    """A distance as a fraction of that between different inputs; NaN where they are not told apart at all."""
    return float(moved / strangers) if float(strangers) > 0 else float("nan")
