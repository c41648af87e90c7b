"""The consistency-regularized objective (Sinha & Dieng 2021), around any bound.

    minimise  -L(x) - L(x~) + lambda KL( q(z|x~) || q(z|x) ),   x~ ~ t(x~|x)

averaged over the batch. The transformed posterior comes first in the KL, gradients flow through both sides, and each
bound reconstructs its own input. Both views go through the network as one batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isolatent_train.bounds import ELBO, IWAE, Bound, Evidence
from isolatent_train.config import ObjectiveSection
from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import VAE


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise and the terms it consists of, batch means in nats, detached."""

    value: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """A bound on the images, and for the arms with transformations on their transformed copies, tied by lambda."""

    bound: Bound
    consistency_weight: float

    def __call__(
        self,
        model: VAE,
        likelihood: Likelihood,
        targets: Tensor,
        transformed: Tensor | None,
        generator: torch.Generator,
        *,
        warmup: float = 1.0,
    ) -> Loss:
        """Loss for targets (B, C, H, W) and their transformed copies of the same shape.

        `transformed` None is the arm `base`: -L(x) alone. `warmup` in 0..1 multiplies lambda.
        """
        if transformed is None:
            evidence = self.bound(model, likelihood, targets, generator)
            return Loss(-evidence.value.mean(), _terms(evidence, len(targets)))
        count = len(targets)
        evidence = self.bound(model, likelihood, torch.cat([targets, transformed]), generator)
        consistency = evidence.posterior[count:].kl(evidence.posterior[:count]).mean()
        bounds = evidence.value[:count].mean() + evidence.value[count:].mean()
        value = -bounds
        if self.consistency_weight:
            value = value + self.consistency_weight * warmup * consistency
        return Loss(value, _terms(evidence, count) | {"consistency": consistency.detach()})


def build_objective(section: ObjectiveSection) -> Objective:
    """The objective that a configuration names."""
    bound: Bound = ELBO(section.beta) if section.bound == "elbo" else IWAE(section.samples)
    return Objective(bound, section.effective_weight)


def _terms(evidence: Evidence, count: int) -> dict[str, Tensor]:
    """Means over the untransformed images, so that the arms' curves compare."""
    return {
        "bound": evidence.value[:count].mean().detach(),
        "reconstruction": evidence.reconstruction[:count].mean().detach(),
        "kl": evidence.kl[:count].mean().detach(),
    }
