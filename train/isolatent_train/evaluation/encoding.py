"""Posteriors of whole data sets, a batch at a time on the model's device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isolatent_train.models import VAE
from isolatent_train.pixels import to_images
from isolatent_train.posterior import DiagonalGaussian

BATCH = 1024
"""Images on the device at once."""


def device_of(model: VAE) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


@torch.inference_mode()
def posteriors(
    model: VAE, pixels: Tensor, *, prepare: Callable[[Tensor], Tensor] = lambda images: images, batch: int = BATCH
) -> DiagonalGaussian:
    """q(z|x) of pixels (N, H, W, C) uint8 on any device; `prepare` maps images (B, C, H, W) to what is encoded.

    Returns N posteriors on the model's device.
    """
    device = device_of(model)
    parts = [model.encode(prepare(to_images(part.to(device)))) for part in pixels.split(batch)]
    return DiagonalGaussian(torch.cat([p.mean for p in parts]), torch.cat([p.log_variance for p in parts]))


def others(posterior: DiagonalGaussian) -> DiagonalGaussian:
    """Each input's posterior replaced by another's: halfway round, so that neighbours in the file are no pairs."""
    shift = len(posterior.mean) // 2
    return DiagonalGaussian(posterior.mean.roll(shift, 0), posterior.log_variance.roll(shift, 0))
