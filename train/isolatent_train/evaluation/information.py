"""How much the latents say: mutual information with the input, and active units."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isolatent_train.posterior import DiagonalGaussian

ACTIVE = 0.01
"""A unit is active when its posterior mean varies by more than this over the data (Burda et al. 2016)."""


def mutual_information(posterior: DiagonalGaussian, generator: torch.Generator) -> float:
    """I_q(x; z) = E_x KL(q(z|x) || p(z)) - KL(q(z) || p(z)) in nats, q(z) the mixture of the N given posteriors.

    Both terms are estimated with the same latents, one per posterior, so that the prior cancels and with it most of the
    noise: E[log q(z|x) - log q(z)] (Hoffman & Johnson 2016). At most log N.
    """
    latents = posterior.sample(generator)  # (N, d), N draws from q(z)
    return float((posterior.log_prob(latents) - _log_mixture(posterior, latents)).mean())


def _log_mixture(posterior: DiagonalGaussian, latents: Tensor, *, rows: int = 256) -> Tensor:
    """Log q(z) of latents (M, d) under the mixture of all N posteriors: (M,)."""
    parts = [posterior.log_prob(part[:, None, :]).logsumexp(1) for part in latents.split(rows)]  # (rows, N) each
    return torch.cat(parts) - math.log(len(posterior.mean))


def active_units(means: Tensor) -> int:
    """Number of latent variables j with Var_x(mu_j(x)) > 0.01, from posterior means (N, d)."""
    return int((means.var(0, correction=1) > ACTIVE).sum())
