"""How far posteriors move when their inputs are transformed, in itself and against the distance of strangers."""

from __future__ import annotations

import torch

from isolatent_train.posterior import DiagonalGaussian


def consistency(original: DiagonalGaussian, copies: list[DiagonalGaussian]) -> dict[str, float]:
    """Figures over N inputs and their transformed copies, each posterior (N, d).

    consistency_kl: mean KL(q(z|x~) || q(z|x)) in nats; consistency_w2: mean squared 2-Wasserstein distance; each also
    `_normalized`, divided by the same quantity between different inputs, because the latent scale itself can shrink;
    retrieval_top1: how often the original nearest to a copy's posterior mean is its own.
    """
    strangers = _others(original)
    kl = torch.stack([copy.kl(original) for copy in copies]).mean()
    w2 = torch.stack([copy.wasserstein2(original) for copy in copies]).mean()
    nearest = [torch.cdist(copy.mean, original.mean).argmin(1) for copy in copies]
    own = torch.arange(len(original.mean), device=original.mean.device)
    return {
        "consistency_kl": float(kl),
        "consistency_kl_normalized": float(kl / strangers.kl(original).mean()),
        "consistency_w2": float(w2),
        "consistency_w2_normalized": float(w2 / strangers.wasserstein2(original).mean()),
        "retrieval_top1": float(torch.stack([found == own for found in nearest]).float().mean()),
    }


def _others(posterior: DiagonalGaussian) -> DiagonalGaussian:
    """Each input's posterior replaced by another's: halfway round, so that neighbours in the file are no pairs."""
    shift = len(posterior.mean) // 2
    return DiagonalGaussian(posterior.mean.roll(shift, 0), posterior.log_variance.roll(shift, 0))
