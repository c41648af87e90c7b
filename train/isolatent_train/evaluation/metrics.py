"""All metrics of one trained model on one data set, from untransformed test images unless said otherwise.

The likelihood is that of binary pixels, drawn once. KL and mutual information are those of what training encodes;
probe, active units, reconstruction and consistency those of the grey images, which are what a served model receives.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from isolatent_train.data import Labelled, Splits
from isolatent_train.evaluation.consistency import consistency
from isolatent_train.evaluation.information import active_units, mutual_information
from isolatent_train.evaluation.likelihood import negative_log_likelihood
from isolatent_train.evaluation.probe import probe_accuracy
from isolatent_train.models import VAE
from isolatent_train.pixels import to_images, to_layout
from isolatent_train.posterior import DiagonalGaussian
from isolatent_train.run import Trained
from isolatent_train.streams import stream
from isolatent_train.transforms import Affine, Transform, transform

EVALUATION_SEED = 1959
"""All models are evaluated with the same draws of transformations, binarisation and latents."""

COPIES = 5
"""Transformed copies per test image."""


@torch.inference_mode()
def evaluate(trained: Trained, splits: Splits, *, samples: int = 1000) -> dict[str, Any]:
    """The metrics by name; `samples` is S of the likelihood. Units in docs/method.md.

    A model trained without transformations is tested with the default affine one.
    """
    model, likelihood = trained.model, trained.likelihood
    images = to_images(splits.test.pixels)  # (N, C, H, W)
    # One stream for both: where training encodes binary pixels, these are the observed ones.
    encoded = posteriors(model, likelihood.targets(images, stream(EVALUATION_SEED, "observe")))
    observed = likelihood.observe(images, stream(EVALUATION_SEED, "observe"))
    latents = stream(EVALUATION_SEED, "latents")
    nll = negative_log_likelihood(model, likelihood, encoded, observed, samples=samples, generator=latents)
    plain = posteriors(model, images)
    reconstruction = likelihood.mean(model.decode(plain.mode()))
    return {
        "nll": float(nll.mean()),
        "nll_samples": samples,
        "bits_per_dim": float(nll.mean()) / (images[0].numel() * math.log(2)),
        "kl": float(encoded.kl().mean()),
        "mutual_information": mutual_information(encoded, stream(EVALUATION_SEED, "marginal")),
        "mutual_information_limit": math.log(len(images)),
        "active_units": active_units(plain.mean),
        "latent_size": model.latent,
        "reconstruction_mse": float((to_layout(reconstruction) - to_layout(images)).square().mean()),
        "probe_accuracy": _probe(model, splits),
        "probe_accuracy_untrained": _probe(trained.untrained(), splits),
        **consistency(plain, _copies(model, images, trained.config.transforms or (Affine(),))),
        "test_examples": len(images),
    }


def posteriors(model: VAE, images: Tensor, *, batch: int = 1024) -> DiagonalGaussian:
    """q(z|x) of images (N, C, H, W), encoded in batches."""
    parts = [model.encode(part) for part in images.split(batch)]
    return DiagonalGaussian(torch.cat([p.mean for p in parts]), torch.cat([p.log_variance for p in parts]))


def _copies(model: VAE, images: Tensor, transforms: tuple[Transform, ...]) -> list[DiagonalGaussian]:
    streams = (stream(EVALUATION_SEED, "transform", index) for index in range(COPIES))
    return [posteriors(model, transform(images, transforms, generator)) for generator in streams]


def _probe(model: VAE, splits: Splits) -> float:
    def features(part: Labelled) -> Any:
        return posteriors(model, to_images(part.pixels)).mode().numpy(), part.labels.numpy()

    return probe_accuracy(features(splits.train), features(splits.test))
