"""Negative log-likelihood by importance sampling, many images at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from isolatent_train.bounds import importance_weights
from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import VAE
from isolatent_train.posterior import DiagonalGaussian

BUDGET = 2**24
"""Decoder output values held at once: images x samples per chunk are chosen to stay below it."""

DECODED = 4096
"""Latents decoded at once at most, because a wide network's inner values are many times its outputs."""


@torch.inference_mode()
def negative_log_likelihood(
    model: VAE,
    likelihood: Likelihood,
    posterior: DiagonalGaussian,
    observed: Tensor,
    *,
    samples: int,
    generator: torch.Generator,
    on_inputs: Callable[[int], None] = lambda _count: None,
) -> Tensor:
    """-log 1/S sum_s p(x, z_s) / q(z_s) in nats, one value per image (Burda et al. 2016, eq. 8).

    observed: x (N, C, H, W) as the likelihood observes it; posterior: the N proposals q; samples: S. Returns (N,).
    `on_inputs` is called with the number of images that were just done.
    """
    chunk = min(samples, 64)
    images = max(1, min(DECODED, BUDGET // observed[0].numel()) // chunk)
    parts = []
    for start in range(0, len(observed), images):
        part = slice(start, start + images)
        parts.append(_of_part(model, likelihood, posterior[part], observed[part], samples, chunk, generator))
        on_inputs(len(parts[-1]))
    return torch.cat(parts)


def _of_part(
    model: VAE,
    likelihood: Likelihood,
    posterior: DiagonalGaussian,
    observed: Tensor,
    samples: int,
    chunk: int,
    generator: torch.Generator,
) -> Tensor:
    total = torch.full((len(observed),), -math.inf, device=observed.device)
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        log_weights, _ = importance_weights(model, likelihood, observed, posterior, count, generator)  # (count, B)
        total = torch.logaddexp(total, log_weights.logsumexp(0))
    return math.log(samples) - total
