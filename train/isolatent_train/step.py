"""One forward pass of training: images in, loss out. A module, so that it can be wrapped for several processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isolatent_train.config import Config
from isolatent_train.consistency import build_objective
from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import VAE
from isolatent_train.transforms import transform


class TrainingStep(nn.Module):
    """Transforms images, draws targets and evaluates the objective, networks in the configured precision."""

    def __init__(self, model: VAE, likelihood: Likelihood, config: Config) -> None:
        super().__init__()
        self.model = model
        self.likelihood = likelihood
        self.objective = build_objective(config.objective, together=config.training.views_together)
        self.transforms = None if config.objective.arm == "base" else config.transforms
        self.layout = torch.channels_last if config.training.channels_last else torch.contiguous_format
        self.bf16 = config.training.precision == "bf16"

    def forward(
        self, inputs: Tensor, generator: torch.Generator, warmup: float, annealing: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Inputs (B, ...) as stored -> loss and its detached terms; every draw comes from `generator`."""
        images = self.model.codec.to_network(inputs)
        if images.ndim == 4:  # point clouds have no channels to put last
            images = images.contiguous(memory_format=self.layout)
        transformed = None
        if self.transforms is not None:
            # The grey image is transformed first, then turned into targets: interpolation would blur binary pixels.
            transformed = self.likelihood.targets(transform(images, self.transforms, generator), generator)
        targets = self.likelihood.targets(images, generator)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.objective(
                self.model, self.likelihood, targets, transformed, generator, warmup=warmup, annealing=annealing
            )
        return loss.value, loss.terms
