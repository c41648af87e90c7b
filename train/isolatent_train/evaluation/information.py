"""How much the latents say: mutual information with the input, and active units."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isolatent_train.posterior import DiagonalGaussian

ACTIVE = 0.01
"""A unit is active when its posterior mean varies by more than this over the data (Burda et al. 2016)."""

DENSITIES = 2**23
"""Densities of latents under posteriors held at once."""


def mutual_information(posterior: DiagonalGaussian, generator: torch.Generator) -> float:
    """I_q(x; z) = E_x KL(q(z|x) || p(z)) - KL(q(z) || p(z)) in nats, q(z) the mixture of the N given posteriors.

    Both terms are estimated with the same latents, one per posterior, so that the prior cancels and with it most of the
    noise: E[log q(z|x) - log q(z)] (Hoffman & Johnson 2016). At most log N.
    """
    latents = posterior.sample(generator)  # (N, d), N draws from q(z)
    return float((posterior.log_prob(latents) - log_mixture(posterior, latents)).mean())


def log_mixture(posterior: DiagonalGaussian, latents: Tensor, *, rows: int | None = None) -> Tensor:
    """Log q(z) of latents (M, d) under the mixture of all N posteriors, `rows` latents at a time: (M,) float64.

    (z - m)^2 / v is expanded to z^2 / v - 2 z m / v + m^2 / v, two matrix products instead of M x N x d differences. In
    float64 and around the common centre, because the three terms can be far larger than their sum.
    """
    count = len(posterior.mean)
    rows = rows or max(1, DENSITIES // count)
    centre = posterior.mean.double().mean(0)
    mean, precision = posterior.mean.double() - centre, (-posterior.log_variance.double()).exp()  # (N, d)
    constant = (math.log(2 * math.pi) + posterior.log_variance.double() + mean.square() * precision).sum(1)  # (N,)
    parts = []
    for part in (latents.double() - centre).split(rows):
        exponents = part.square() @ precision.T - 2 * part @ (mean * precision).T + constant  # (rows, N)
        parts.append((-0.5 * exponents).logsumexp(1))
    return torch.cat(parts) - math.log(count)


def active_units(means: Tensor) -> int | None:
    """Number of latent variables j with Var_x(mu_j(x)) > 0.01, from posterior means (N, d); None for one input."""
    return int((means.var(0, correction=1) > ACTIVE).sum()) if len(means) > 1 else None
