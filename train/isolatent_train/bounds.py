"""Lower bounds of log p(x): the ELBO (with beta) and IWAE. Each plugs into the consistency objective unchanged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import VAE
from isolatent_train.posterior import DiagonalGaussian


@dataclass(frozen=True)
class Evidence:
    """A bound per image, with the posterior it was computed from. All in nats, all (B,)."""

    value: Tensor
    posterior: DiagonalGaussian
    reconstruction: Tensor
    """log p(x|z), averaged over the posterior samples."""
    kl: Tensor
    """KL(q(z|x) || p(z)), closed form."""

    def __getitem__(self, part: slice) -> Evidence:
        """Of some of the images."""
        return Evidence(self.value[part], self.posterior[part], self.reconstruction[part], self.kl[part])


class Bound(Protocol):
    """Anything that bounds log p(x) from below, image by image."""

    def __call__(
        self, model: VAE, likelihood: Likelihood, targets: Tensor, generator: torch.Generator, *, annealing: float = 1.0
    ) -> Evidence:
        """Bound for targets (B, C, H, W); `annealing` in 0..1 weighs the prior's part while it warms up."""


@dataclass(frozen=True)
class ELBO:
    """E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), one sample, closed-form KL (Kingma & Welling 2014; Higgins 2017)."""

    beta: float = 1.0

    def __call__(
        self, model: VAE, likelihood: Likelihood, targets: Tensor, generator: torch.Generator, *, annealing: float = 1.0
    ) -> Evidence:
        """Bound for targets (B, C, H, W)."""
        posterior = model.encode(targets)
        outputs = model.decode(posterior.sample(generator))
        reconstruction = likelihood.log_prob(outputs[None], targets)[0]
        kl = posterior.kl()
        return Evidence(reconstruction - annealing * self.beta * kl, posterior, reconstruction, kl)


@dataclass(frozen=True)
class IWAE:
    """Log 1/K sum_k p(x, z_k) / q(z_k|x), K samples (Burda, Grosse & Salakhutdinov 2016)."""

    samples: int

    def __call__(
        self, model: VAE, likelihood: Likelihood, targets: Tensor, generator: torch.Generator, *, annealing: float = 1.0
    ) -> Evidence:
        """Bound for targets (B, C, H, W)."""
        posterior = model.encode(targets)
        log_weights, reconstruction = importance_weights(model, likelihood, targets, posterior, self.samples, generator)
        if annealing != 1:
            log_weights = reconstruction + annealing * (log_weights - reconstruction)
        value = log_weights.logsumexp(0) - math.log(self.samples)
        return Evidence(value, posterior, reconstruction.mean(0), posterior.kl())


def importance_weights(
    model: VAE,
    likelihood: Likelihood,
    targets: Tensor,
    posterior: DiagonalGaussian,
    samples: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw z_k ~ q(z|x): log p(x, z_k) - log q(z_k|x) and log p(x|z_k), each (samples, B), in nats."""
    latents = posterior.sample(generator, samples)  # (K, B, d)
    outputs = model.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])  # (K, B, C, H, W)
    reconstruction = likelihood.log_prob(outputs, targets)
    prior = DiagonalGaussian(torch.zeros_like(posterior.mean), torch.zeros_like(posterior.mean))
    return reconstruction + prior.log_prob(latents) - posterior.log_prob(latents), reconstruction
