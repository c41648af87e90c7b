"""The diagonal Gaussian posterior q(z|x)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_VARIANCE_RANGE = (-30.0, 20.0)
"""Encoders clamp log-variances to this range; outside it exp() and the consistency term lose all meaning."""


@dataclass(frozen=True)
class DiagonalGaussian:
    """A batch of Gaussians with diagonal covariance: mean and log_variance of shape (..., d)."""

    mean: Tensor
    log_variance: Tensor

    @property
    def variance(self) -> Tensor:
        """Variances (..., d)."""
        return self.log_variance.exp()

    @property
    def std(self) -> Tensor:
        """Standard deviations (..., d)."""
        return (0.5 * self.log_variance).exp()

    def mode(self) -> Tensor:
        """The most probable latent, which is the mean (..., d): the embedding."""
        return self.mean

    def sample(self, generator: torch.Generator, count: int | None = None) -> Tensor:
        """Draw reparametrised latents: (..., d), or (count, ..., d) when `count` is given."""
        shape = self.mean.shape if count is None else (count, *self.mean.shape)
        noise = torch.randn(shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.std * noise

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log density in nats of latents (..., d), summed over d."""
        deviation = (latents - self.mean).square() / self.variance
        return -0.5 * (math.log(2 * math.pi) + self.log_variance + deviation).sum(-1)

    def kl(self, other: DiagonalGaussian | None = None) -> Tensor:
        """KL(self || other) in nats, summed over d; `other` None is the prior N(0, I).

        1/2 sum_j [ log(v_other / v) - 1 + (v + (m - m_other)^2) / v_other ], Kingma & Welling 2014, appendix B.
        """
        if other is None:
            return 0.5 * (self.variance + self.mean.square() - 1 - self.log_variance).sum(-1)
        gap = other.log_variance - self.log_variance
        spread = (-gap).exp() + (self.mean - other.mean).square() * (-other.log_variance).exp()
        return 0.5 * (gap - 1 + spread).sum(-1)

    def wasserstein2(self, other: DiagonalGaussian) -> Tensor:
        """Squared 2-Wasserstein distance ||m - m'||^2 + ||s - s'||^2, summed over d."""
        return ((self.mean - other.mean).square() + (self.std - other.std).square()).sum(-1)

    def __getitem__(self, index: slice | Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean[index], self.log_variance[index])
