"""Networks: any image size in, the same size out, exported with everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from isolatent_export.manifest import ImageInput
from isolatent_export.verify import load_verified
from isolatent_train.config import ModelSection
from isolatent_train.likelihoods import Bernoulli, DiscretisedLogistic, Likelihood
from isolatent_train.models import build_model
from support import export_untrained

LIKELIHOODS: list[Likelihood] = [Bernoulli(dynamic=True), DiscretisedLogistic()]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("net", ["conv", "residual"])
@pytest.mark.parametrize("size", [(28, 28), (33, 20), (5, 64)])
def test_outputs_have_the_size_of_the_input(net: str, size: tuple[int, int], likelihood: Likelihood) -> None:
    spec = ImageInput(height=size[0], width=size[1], channels=3)
    section = ModelSection.model_validate({"net": net, "latent": 5, "channels": (4, 8, 8)})
    model = build_model(section, spec, likelihood).eval()
    posterior = model.encode(torch.rand(2, 3, *size))
    assert posterior.mean.shape == posterior.log_variance.shape == (2, 5)
    outputs = model.decode(posterior.mode())
    assert likelihood.mean(outputs).shape == (2, 3, *size)
    assert likelihood.log_prob(outputs[None], torch.rand(2, 3, *size).round()).shape == (1, 2)


def test_the_papers_net_pads_28_to_32_and_ends_at_2() -> None:
    section = ModelSection(latent=50, channels=(128, 256, 512, 1024))
    model = build_model(section, ImageInput(height=28, width=28, channels=1), LIKELIHOODS[0])
    assert model.encoder.head.linear.in_features == 1024 * 2 * 2  # type: ignore[union-attr]


@pytest.mark.parametrize("net", ["conv", "residual"])
def test_every_net_and_likelihood_exports(net: str, tmp_path: Path) -> None:
    spec = ImageInput(height=10, width=12, channels=3)
    section = ModelSection.model_validate({"net": net, "latent": 4, "channels": (4, 8)})
    bundle = export_untrained(tmp_path / net, spec, latent=4, section=section, likelihood=DiscretisedLogistic())
    assert load_verified(bundle).provider == "CPUExecutionProvider"


def test_extreme_log_variances_are_clamped() -> None:
    model = build_model(
        ModelSection(latent=2, channels=(4,)), ImageInput(height=8, width=8, channels=1), LIKELIHOODS[0]
    )
    with torch.no_grad():
        model.encoder.head.linear.bias.copy_(torch.tensor([0.0, 0.0, 900.0, -900.0]))  # type: ignore[union-attr,operator]
    assert model.encode(torch.rand(1, 1, 8, 8)).log_variance.tolist() == [[20.0, -30.0]]
