"""The consistency-regularized objective (Sinha & Dieng 2021), around any bound.

    minimise  -L(x) - L(x~) + lambda R( q(z|x), q(z|x~) ),   x~ ~ t(x~|x)

averaged over the batch. R is KL( q(z|x~) || q(z|x) ): the transformed posterior comes first, gradients flow through
both sides, and each bound reconstructs its own input. Both views go through the network as one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isolatent_train.bounds import ELBO, IWAE, Bound, Evidence
from isolatent_train.config import ObjectiveSection
from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import VAE
from isolatent_train.posterior import DiagonalGaussian

Regularizer = Callable[[DiagonalGaussian, DiagonalGaussian], Tensor]
"""(posterior of the originals, posterior of their transformed copies) -> a cost per image (B,)."""


def consistency_kl(original: DiagonalGaussian, transformed: DiagonalGaussian) -> Tensor:
    """KL( q(z|x~) || q(z|x) ) in nats, summed over latent dimensions: (B,)."""
    return transformed.kl(original)


@dataclass(frozen=True)
class Triplet:
    """max(0, ||m - m~||^2 - ||m - m'||^2 + margin), m' the next image's mean in the batch (Schroff et al. 2015)."""

    margin: float = 1.0

    def __call__(self, original: DiagonalGaussian, transformed: DiagonalGaussian) -> Tensor:
        """Triplet loss per image (B,)."""
        near = (original.mean - transformed.mean).square().sum(-1)
        far = (original.mean - original.mean.roll(1, 0)).square().sum(-1)
        return (near - far + self.margin).clamp(min=0)


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise and the terms it consists of, batch means in nats, detached."""

    value: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """A bound on the images and, but for the arm base, on their transformed copies, tied by a regularizer."""

    bound: Bound
    weight: float
    """lambda"""
    regularizer: Regularizer = consistency_kl

    def __call__(
        self,
        model: VAE,
        likelihood: Likelihood,
        targets: Tensor,
        transformed: Tensor | None,
        generator: torch.Generator,
        *,
        warmup: float = 1.0,
        annealing: float = 1.0,
    ) -> Loss:
        """Loss for targets (B, C, H, W) and their transformed copies of the same shape.

        `transformed` None is the arm `base`: -L(x) alone. `warmup` in 0..1 multiplies lambda, `annealing` the KL to the
        prior.
        """
        if transformed is None:
            evidence = self.bound(model, likelihood, targets, generator, annealing=annealing)
            return Loss(-evidence.value.mean(), _terms(evidence, len(targets)))
        count = len(targets)
        both = torch.cat([targets, transformed])
        evidence = self.bound(model, likelihood, both, generator, annealing=annealing)
        original, moved = evidence.posterior[:count], evidence.posterior[count:]
        value = -evidence.value[:count].mean() - evidence.value[count:].mean()
        terms = _terms(evidence, count) | {"consistency": consistency_kl(original, moved).mean()}
        if self.weight:
            cost = self.regularizer(original, moved).mean()
            value = value + self.weight * warmup * cost
            terms["regularizer"] = cost
        return Loss(value, {name: term.detach() for name, term in terms.items()})


def build_objective(section: ObjectiveSection) -> Objective:
    """The objective that a configuration names."""
    bound: Bound = ELBO(section.beta) if section.bound == "elbo" else IWAE(section.samples)
    regularizer: Regularizer = Triplet(section.margin) if section.arm == "triplet" else consistency_kl
    return Objective(bound, section.effective_weight, regularizer)


def _terms(evidence: Evidence, count: int) -> dict[str, Tensor]:
    """Means over the untransformed images, so that the arms' curves compare."""
    return {
        "bound": evidence.value[:count].mean().detach(),
        "reconstruction": evidence.reconstruction[:count].mean().detach(),
        "kl": evidence.kl[:count].mean().detach(),
    }
