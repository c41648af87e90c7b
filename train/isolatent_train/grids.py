"""Rows of pictures of what a model does: reconstructions, samples from the prior, traversals of single latents."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import VAE
from isolatent_train.posterior import DiagonalGaussian
from isolatent_train.streams import stream

Rows = list[NDArray[Any]]
"""Each (N, H, W, C), uint8 or float in 0..1."""


def decoded(model: VAE, likelihood: Likelihood, latents: Tensor) -> NDArray[Any]:
    """Pictures (N, H, W, C) of what latents (N, d) stand for."""
    return model.codec.pictures(model.codec.to_inputs(likelihood.mean(model.decode(latents))))


@torch.inference_mode()
def reconstructions(model: VAE, likelihood: Likelihood, inputs: Tensor) -> Rows:
    """Inputs (N, ...) as stored, and below them what the decoder makes of their posterior means."""
    means = model.encode(model.codec.to_network(inputs)).mode()
    return [model.codec.pictures(inputs), decoded(model, likelihood, means)]


@torch.inference_mode()
def samples(model: VAE, likelihood: Likelihood, *, rows: int = 4, columns: int = 12, device: torch.device) -> Rows:
    """Decoded draws from the prior N(0, I), the same ones each time."""
    prior = DiagonalGaussian(torch.zeros(columns, model.latent, device=device), torch.zeros(1, device=device))
    draws = prior.sample(stream(0, "samples", 0, device), rows)  # (rows, columns, d)
    return [decoded(model, likelihood, latents) for latents in draws]


@torch.inference_mode()
def traversal(model: VAE, likelihood: Likelihood, means: Tensor, *, steps: int = 9, units: int = 8) -> Rows:
    """One row per latent variable, the most varying of `means` (N, d) first, moved by ±2.5 standard deviations."""
    spread, centre = means.std(0, correction=0), means.mean(0)
    steps_of = torch.linspace(-2.5, 2.5, steps, device=means.device)
    rows = []
    for unit in spread.argsort(descending=True)[:units]:
        latents = means[:1].repeat(steps, 1)
        latents[:, unit] = centre[unit] + spread[unit] * steps_of
        rows.append(decoded(model, likelihood, latents))
    return rows
