"""All metrics of one trained model on one data set, from untransformed test images unless said otherwise.

The likelihood is that of pixels as the likelihood observes them, drawn once. KL and mutual information are those of
what training encodes; probe, active units, reconstruction and consistency those of the images as they are, which are
what a served model receives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from isolatent_train.data import Labelled, Splits
from isolatent_train.evaluation.consistency import consistency
from isolatent_train.evaluation.encoding import BATCH, device_of, posteriors
from isolatent_train.evaluation.information import active_units, mutual_information
from isolatent_train.evaluation.likelihood import negative_log_likelihood
from isolatent_train.evaluation.probe import Probe, linear_probe, sample
from isolatent_train.evaluation.strengths import consistency_by_strength
from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import VAE
from isolatent_train.pixels import to_images
from isolatent_train.posterior import DiagonalGaussian
from isolatent_train.run import Trained
from isolatent_train.streams import stream
from isolatent_train.transforms import Affine, Transform, transform

EVALUATION_SEED = 1959
"""All models are evaluated with the same draws of transformations, binarisation and latents."""

COPIES = 5
"""Transformed copies per test image."""


@torch.inference_mode()
def evaluate(
    trained: Trained,
    splits: Splits,
    *,
    samples: int = 1000,
    device: torch.device | None = None,
    on_images: Callable[[int], None] = lambda _count: None,
) -> dict[str, Any]:
    """The metrics by name, JSON-ready; `samples` is S of the likelihood. Units in docs/method.md.

    A model trained without transformations is tested with the default affine one. A figure that this data cannot tell,
    or that is not finite, is None. `on_images` is called with the number of images whose likelihood was just computed.
    The model is moved to `device` and left there; the data stays where it is.
    """
    model, likelihood, pixels = trained.model.to(device or torch.device("cpu")), trained.likelihood, splits.test.pixels
    # The same draws as in `_nll`: where training encodes binary pixels, these are the observed ones.
    draws = _stream(model, "observe")
    encoded = posteriors(model, pixels, prepare=lambda images: likelihood.targets(images, draws))
    nll = float(_nll(model, likelihood, encoded, pixels, samples, on_images).mean())
    plain = posteriors(model, pixels)
    transforms = trained.config.transforms or (Affine(),)
    found = {
        "nll": nll,
        "nll_samples": samples,
        "bits_per_dim": nll / (pixels[0].numel() * math.log(2)),
        "kl": float(encoded.kl().mean()),
        "mutual_information": mutual_information(encoded, _stream(model, "marginal")),
        "mutual_information_limit": math.log(len(pixels)),
        "active_units": active_units(plain.mean),
        "latent_size": model.latent,
        "reconstruction_mse": float(reconstruction_errors(model, likelihood, pixels, plain).mean()),
        **_probes(trained, model, splits),
        **consistency(plain, _copies(model, pixels, transforms)),
        "consistency_by_strength": consistency_by_strength(model, pixels, transforms),
        "test_examples": len(pixels),
    }
    return {name: _finite(value) for name, value in found.items()}


def reconstruction_errors(model: VAE, likelihood: Likelihood, pixels: Tensor, posterior: DiagonalGaussian) -> Tensor:
    """Mean squared error per pixel of the decoded posterior means, pixels in 0..1: one value per image (N,)."""
    errors = []
    for latents, part in zip(posterior.mode().split(BATCH), pixels.split(BATCH), strict=True):
        gap = likelihood.mean(model.decode(latents)) - to_images(part.to(latents.device))
        errors.append(gap.square().flatten(1).mean(1))
    return torch.cat(errors)


def _nll(
    model: VAE,
    likelihood: Likelihood,
    encoded: DiagonalGaussian,
    pixels: Tensor,
    samples: int,
    on_images: Callable[[int], None],
) -> Tensor:
    draws, latents = _stream(model, "observe"), _stream(model, "latents")
    values = []
    for index, part in enumerate(pixels.split(BATCH)):
        observed = likelihood.observe(to_images(part.to(device_of(model))), draws)
        proposals = encoded[index * BATCH : index * BATCH + len(part)]
        values.append(
            negative_log_likelihood(
                model, likelihood, proposals, observed, samples=samples, generator=latents, on_images=on_images
            )
        )
    return torch.cat(values)


def _copies(model: VAE, pixels: Tensor, transforms: tuple[Transform, ...]) -> list[DiagonalGaussian]:
    streams = [_stream(model, "transform", index) for index in range(COPIES)]
    views = [partial(transform, transforms=transforms, generator=each) for each in streams]
    return [posteriors(model, pixels, prepare=view) for view in views]


def _probes(trained: Trained, model: VAE, splits: Splits) -> dict[str, Any]:
    probe = _probe(model, splits)
    untrained = _probe(trained.untrained().to(device_of(model)), splits)
    found = {
        "probe_accuracy": probe.accuracy,
        "probe_accuracy_untrained": untrained.accuracy,
        "probe_train_examples": probe.examples,
    }
    note = probe.note or (untrained.note and f"untrained encoder: {untrained.note}")
    return found | ({"probe_note": note} if note else {})


def _probe(model: VAE, splits: Splits) -> Probe:
    if splits.train.labels is None or splits.test.labels is None:
        return Probe(None, 0, "the data has no labels; evaluate with --data SPEC that has, for a probe")

    def features(part: Labelled) -> Any:
        assert part.labels is not None
        return posteriors(model, part.pixels).mode().cpu().numpy(), part.labels.cpu().numpy()

    used = splits.train[torch.from_numpy(sample(len(splits.train)))]
    return linear_probe(features(used), features(splits.test))


def _stream(model: VAE, purpose: str, index: int = 0) -> torch.Generator:
    return stream(EVALUATION_SEED, purpose, index, device_of(model))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value
