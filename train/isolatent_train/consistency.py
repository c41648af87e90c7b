"""The consistency-regularized objective (Sinha & Dieng 2021), around any bound.

    minimise  -L(x) - L(x~) + lambda R( q(z|x), q(z|x~) ),   x~ ~ t(x~|x)

averaged over the batch. R is KL( q(z|x~) || q(z|x) ): the transformed posterior comes first, gradients flow through
both sides, and each bound reconstructs its own input.
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
    together: bool = True
    """Both views go through the network as one batch, or one after the other."""

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
            return Loss(-evidence.value.mean(), _terms(evidence))
        if self.together:
            both = self.bound(model, likelihood, torch.cat([targets, transformed]), generator, annealing=annealing)
            original, moved = both[: len(targets)], both[len(targets) :]
        else:
            original = self.bound(model, likelihood, targets, generator, annealing=annealing)
            moved = self.bound(model, likelihood, transformed, generator, annealing=annealing)
        value = -original.value.mean() - moved.value.mean()
        terms = _terms(original) | {"consistency": consistency_kl(original.posterior, moved.posterior).mean()}
        if self.weight:
            cost = self.regularizer(original.posterior, moved.posterior).mean()
            value = value + self.weight * warmup * cost
            terms["regularizer"] = cost
        return Loss(value, {name: term.detach() for name, term in terms.items()})


def build_objective(section: ObjectiveSection, *, together: bool = True) -> Objective:
    """The objective that a configuration names, of views `together` in one batch or not."""
    bound: Bound = ELBO(section.beta) if section.bound == "elbo" else IWAE(section.samples)
    regularizer: Regularizer = Triplet(section.margin) if section.arm == "triplet" else consistency_kl
    return Objective(bound, section.effective_weight, regularizer, together)


def _terms(evidence: Evidence) -> dict[str, Tensor]:
    """Means over the untransformed images, so that the arms' curves compare."""
    return {
        "bound": evidence.value.mean().detach(),
        "reconstruction": evidence.reconstruction.mean().detach(),
        "kl": evidence.kl.mean().detach(),
    }
