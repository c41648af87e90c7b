"""All metrics of one trained model on one data set, from untransformed test inputs unless said otherwise.

The likelihood is that of data as the likelihood observes it, drawn once. KL and mutual information are those of what
training encodes; probe, active units, reconstruction and consistency those of the inputs as they are, which are what a
served model receives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from isolatent_train.data import Labelled, Splits
from isolatent_train.evaluation.consistency import consistency
from isolatent_train.evaluation.encoding import batch_size, device_of, posteriors
from isolatent_train.evaluation.information import active_units, mutual_information
from isolatent_train.evaluation.likelihood import negative_log_likelihood
from isolatent_train.evaluation.probe import PROBES, Probe, linear_probe, sample
from isolatent_train.evaluation.strengths import consistency_by_strength
from isolatent_train.geometry import chamfer_distance
from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import VAE
from isolatent_train.posterior import DiagonalGaussian
from isolatent_train.run import RunError, Trained
from isolatent_train.streams import stream
from isolatent_train.transforms import Affine, Transform, Transforms, transform

EVALUATION_SEED = 1959
"""All models are evaluated with the same draws of transformations, binarisation and latents."""

COPIES = 5
"""Transformed copies per test input."""

USUAL: dict[str, Sequence[Transform]] = {
    "image": (Affine(),),
    "point_cloud": TypeAdapter(Transforms).validate_python("cloud"),
}
"""What a model is tested with that was trained without transformations."""

ERRORS = {"image": "reconstruction_mse", "point_cloud": "chamfer"}
"""Modality -> name of its reconstruction error."""


@torch.inference_mode()
def evaluate(
    trained: Trained,
    splits: Splits,
    *,
    samples: int = 1000,
    device: torch.device | None = None,
    on_inputs: Callable[[int], None] = lambda _count: None,
) -> dict[str, Any]:
    """The metrics by name, JSON-ready; `samples` is S of the likelihood. Units in docs/method.md.

    A model trained without transformations is tested with the usual ones of its modality. A figure that this data or
    model cannot tell, or that is not finite, is None; point clouds, whose p(x|z) is an energy and no density, have no
    NLL. `on_inputs` is called with the number of inputs that were just measured. The model is moved to `device` and
    left there; the data stays where it is. Raises RunError when the model's outputs are not finite.
    """
    model, likelihood, inputs = trained.model.to(device or torch.device("cpu")), trained.likelihood, splits.test.inputs
    # The same draws as in `_likelihood`: where training encodes binary pixels, these are the observed ones.
    draws = _stream(model, "observe")
    encoded = posteriors(model, inputs, prepare=lambda tensors: likelihood.targets(tensors, draws))
    plain = posteriors(model, inputs)
    _require_finite(trained, "posteriors", plain.mean + plain.log_variance)
    transforms = trained.config.transforms or USUAL[model.codec.modality]
    errors = reconstruction_errors(model, likelihood, inputs, plain)
    _require_finite(trained, "reconstructions", errors[:, None])
    found = {
        **_likelihood(model, likelihood, encoded, inputs, samples, on_inputs),
        "kl": float(encoded.kl().mean()),
        "mutual_information": mutual_information(encoded, _stream(model, "marginal")),
        "mutual_information_limit": math.log(len(inputs)),
        "active_units": active_units(plain.mean),
        "latent_size": model.latent,
        ERRORS[model.codec.modality]: float(errors.mean()),
        **_probes(trained, model, splits),
        **consistency(plain, _copies(model, inputs, transforms)),
        "consistency_by_strength": consistency_by_strength(model, inputs, transforms),
        "test_examples": len(inputs),
    }
    return {name: _finite(value) for name, value in found.items()}


def _require_finite(trained: Trained, what: str, values: Tensor) -> None:
    """Raise RunError where one of an input's values (N, ...) is not finite: plots and classifiers take none such."""
    broken = int((~values.isfinite()).any(1).sum())
    if broken:
        found = f"the {what} of {broken} of {len(values)} test inputs are not finite numbers"
        raise RunError(f"{trained.path}: {found}; train again, with a lower training.learning_rate")


def reconstruction_errors(model: VAE, likelihood: Likelihood, inputs: Tensor, posterior: DiagonalGaussian) -> Tensor:
    """Error of the decoded posterior means of inputs (N, ...) as stored, one value per input (N,).

    Images: mean squared error per pixel, pixels in 0..1. Point clouds: Chamfer distance.
    """
    size = batch_size(inputs)
    errors = []
    for latents, part in zip(posterior.mode().split(size), inputs.split(size), strict=True):
        decoded = likelihood.mean(model.decode(latents))
        given = model.codec.to_network(part.to(latents.device))
        if model.codec.modality == "point_cloud":
            errors.append(chamfer_distance(given, decoded))
        else:
            errors.append((decoded - given).square().flatten(1).mean(1))
    return torch.cat(errors)


def _likelihood(
    model: VAE,
    likelihood: Likelihood,
    encoded: DiagonalGaussian,
    inputs: Tensor,
    samples: int,
    on_inputs: Callable[[int], None],
) -> dict[str, Any]:
    """NLL in nats and bits per dimension; nothing where p(x|z) is no density."""
    if not likelihood.is_density:
        on_inputs(len(inputs))
        return {}
    draws, latents = _stream(model, "observe"), _stream(model, "latents")
    values, size = [], batch_size(inputs)
    for index, part in enumerate(inputs.split(size)):
        observed = likelihood.observe(model.codec.to_network(part.to(device_of(model))), draws)
        proposals = encoded[index * size : index * size + len(part)]
        values.append(
            negative_log_likelihood(
                model, likelihood, proposals, observed, samples=samples, generator=latents, on_inputs=on_inputs
            )
        )
    nll = float(torch.cat(values).mean())
    return {"nll": nll, "nll_samples": samples, "bits_per_dim": nll / (inputs[0].numel() * math.log(2))}


def _copies(model: VAE, inputs: Tensor, transforms: Sequence[Transform]) -> list[DiagonalGaussian]:
    streams = [_stream(model, "transform", index) for index in range(COPIES)]
    views = [partial(transform, transforms=transforms, generator=each) for each in streams]
    return [posteriors(model, inputs, prepare=view) for view in views]


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
        return posteriors(model, part.inputs).mode().cpu().numpy(), part.labels.cpu().numpy()

    used = splits.train[torch.from_numpy(sample(len(splits.train)))]
    return linear_probe(features(used), features(splits.test), classifier=PROBES[model.codec.modality])


def _stream(model: VAE, purpose: str, index: int = 0) -> torch.Generator:
    return stream(EVALUATION_SEED, purpose, index, device_of(model))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value
