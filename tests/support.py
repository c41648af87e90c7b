"""Helpers that tests of several packages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from isolatent_export.bundle import Bundle
from isolatent_export.manifest import ImageInput, Latent, LatentGroup, Objective, Training
from isolatent_export.write import Export, write_bundle
from isolatent_train.config import ModelSection
from isolatent_train.likelihoods import Bernoulli, Likelihood
from isolatent_train.models import build_model
from isolatent_train.pixels import ExportedDecoder, ExportedEncoder


def export_untrained(
    out: Path,
    spec: ImageInput,
    *,
    latent: int,
    section: ModelSection | None = None,
    likelihood: Likelihood | None = None,
    **changes: Any,
) -> Bundle:
    """Export a freshly initialised VAE; its weights are arbitrary, everything else about the bundle is real."""
    section = section or ModelSection(latent=latent, channels=(8, 16))
    likelihood = likelihood or Bernoulli(dynamic=True)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = build_model(section, spec, likelihood).eval()
        golden = torch.randint(0, 256, (16, *spec.shape), dtype=torch.uint8).numpy()
    facts: dict[str, Any] = {
        "encoder": ExportedEncoder(model),
        "decoder": ExportedDecoder(model, likelihood),
        "weights": model.state_dict(),
        "config": {},
        "golden_inputs": golden,
        "name": out.name,
        "version": "1",
        "family": "vae",
        "objective": Objective(
            arm="cr", bound="elbo", likelihood=likelihood.description, consistency_weight=0.1, beta=1.0, samples=1
        ),
        "input": spec,
        "latent": Latent(size=latent, groups=(LatentGroup(name="z", size=latent),)),
        "transforms": ({"kind": "affine", "rotation": 15.0},),
        "training": Training(data="none", examples={}, epochs=0, updates=0, seed=7, git_revision=None),
        "metrics": {"nll": 1.5},
    }
    return write_bundle(Export(**facts | changes), out)
