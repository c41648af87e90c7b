"""Posteriors of whole data sets, a batch at a time on the model's device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isolatent_train.models import VAE
from isolatent_train.posterior import DiagonalGaussian

LARGEST = 1024
"""Inputs on the device at once at most."""

PIXELS = LARGEST * 64 * 64
"""Pixels on the device at once: what networks hold of an image grows with them. Draws depend on the batch size."""

PAIRS = 2**24
"""Pairs of points on the device at once: nets of point clouds compare every point of a cloud with every other."""

PAIRS_IN_CACHE = 2**19
"""Pairs of points that a processor encodes at once: more of them do not fit its cache, which halves its speed."""


def batch_size(inputs: Tensor, pairs: int = PAIRS) -> int:
    """How many of the inputs (N, ...) as stored are prepared, and go to the device, at once."""
    at_once = PIXELS // (inputs.shape[1] * inputs.shape[2]) if inputs.ndim == 4 else pairs // inputs.shape[1] ** 2
    return max(1, min(LARGEST, at_once))


def device_of(model: VAE) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


@torch.inference_mode()
def posteriors(
    model: VAE,
    inputs: Tensor,
    *,
    prepare: Callable[[Tensor], Tensor] = lambda tensors: tensors,
    batch: int | None = None,
) -> DiagonalGaussian:
    """q(z|x) of inputs (N, ...) as stored, on any device; `prepare` maps what networks take to what is encoded.

    Returns N posteriors on the model's device.
    """
    device, size = device_of(model), batch or batch_size(inputs)
    # Drawn for as many at once on every device: the same draws.
    at_once = batch_size(inputs, PAIRS_IN_CACHE) if device.type == "cpu" else size
    prepared = (prepare(model.codec.to_network(part.to(device))) for part in inputs.split(size))
    parts = [model.encode(piece) for part in prepared for piece in part.split(at_once)]
    return DiagonalGaussian(torch.cat([p.mean for p in parts]), torch.cat([p.log_variance for p in parts]))


def others(posterior: DiagonalGaussian) -> DiagonalGaussian:
    """Each input's posterior replaced by another's: halfway round, so that neighbours in the file are no pairs."""
    shift = len(posterior.mean) // 2
    return DiagonalGaussian(posterior.mean.roll(shift, 0), posterior.log_variance.roll(shift, 0))
