"""Helpers that tests of several packages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isolatent_export.bundle import Bundle
from isolatent_export.manifest import ImageInput, InputSpec, Latent, LatentGroup, Objective, PointCloudInput, Training
from isolatent_export.write import Export, write_bundle
from isolatent_train.config import ModelSection
from isolatent_train.exported import ExportedDecoder, ExportedEncoder
from isolatent_train.likelihoods import Bernoulli, Likelihood
from isolatent_train.models import build_model


def export_untrained(
    out: Path,
    spec: ImageInput,
    *,
    latent: int,
    section: ModelSection | None = None,
    likelihood: Likelihood | None = None,
    seed: int = 7,
    **changes: Any,
) -> Bundle:
    """Export a freshly initialised VAE; its weights are arbitrary, everything else about the bundle is real."""
    section = section or ModelSection(latent=latent, channels=(8, 16))
    likelihood = likelihood or Bernoulli(dynamic=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(section, spec, likelihood).eval()
        golden = torch.randint(0, 256, (16, *spec.shape), dtype=torch.uint8).numpy()
    facts = untrained_facts(out, spec, latent, likelihood.description) | {
        "encoder": ExportedEncoder(model),
        "decoder": ExportedDecoder(model, likelihood),
        "weights": model.state_dict(),
        "golden_inputs": golden,
        "family": "vae",
        "transforms": ({"kind": "affine", "rotation": 15.0},),
    }
    return write_bundle(Export(**facts | changes), out)


def untrained_facts(out: Path, spec: InputSpec, latent: int, likelihood: str = "none") -> dict[str, Any]:
    """Members of an Export that are the same for every untrained model."""
    return {
        "config": {},
        "name": out.name,
        "version": "1",
        "objective": Objective(
            arm="cr", bound="elbo", likelihood=likelihood, consistency_weight=0.1, beta=1.0, samples=1
        ),
        "input": spec,
        "latent": Latent(size=latent, groups=(LatentGroup(name="z", size=latent),)),
        "training": Training(
            data="none", data_sha256=None, examples={}, epochs=0, updates=0, seed=7, git_revision=None
        ),
        "metrics": {"nll": 1.5},
    }


class TinyCloudEncoder(nn.Module):
    """PointNet in a nutshell: points (B, P, 3), any P -> mean, log-variance (B, d)."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.per_point = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.head = nn.Linear(32, 2 * latent)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of q(z|x)."""
        mean, log_variance = self.head(self.per_point(points).amax(dim=1)).chunk(2, dim=-1)
        return mean, log_variance


class TinyCloudDecoder(nn.Module):
    """Latents (B, d) -> points (B, 49, 3): another number than any input has, as folding decoders do."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(latent, 32), nn.ReLU(), nn.Linear(32, 49 * 3), nn.Tanh())

    def forward(self, latents: Tensor) -> Tensor:
        """The reconstructed cloud."""
        cloud: Tensor = self.net(latents).unflatten(1, (49, 3))
        return cloud


def export_untrained_cloud(out: Path, *, points: int = 64, latent: int = 8, **changes: Any) -> Bundle:
    """Export an untrained encoder and decoder of point clouds; the rest of the bundle is real.

    `changes` replaces members of the input specification (normalization, sampling) or of the Export.
    """
    shape = {name: changes.pop(name) for name in ("normalization", "sampling") if name in changes}
    spec = PointCloudInput(points=points, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        encoder, decoder = TinyCloudEncoder(latent).eval(), TinyCloudDecoder(latent).eval()
        golden = normalized(torch.randn(16, points, 3) * torch.rand(16, 1, 3)).numpy()
    facts = untrained_facts(out, spec, latent) | {
        "encoder": encoder,
        "decoder": decoder,
        "weights": {f"encoder.{name}": value for name, value in encoder.state_dict().items()},
        "golden_inputs": golden,
        "family": "tiny",
        "transforms": ({"kind": "rotation", "axis": "any"},),
    }
    return write_bundle(Export(**facts | changes), out)


def normalized(clouds: Tensor) -> Tensor:
    """Clouds (N, P, 3) moved to their mean and scaled to the unit sphere."""
    centred = clouds - clouds.mean(dim=1, keepdim=True)
    return centred / centred.norm(dim=2).amax(dim=1)[:, None, None]
