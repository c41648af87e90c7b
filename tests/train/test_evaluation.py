"""Metrics against cases whose answer is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from isolatent.cli import main
from isolatent_train.config import Config
from isolatent_train.data import load_data
from isolatent_train.evaluation.consistency import consistency
from isolatent_train.evaluation.information import active_units, mutual_information
from isolatent_train.evaluation.likelihood import negative_log_likelihood
from isolatent_train.evaluation.probe import probe_accuracy
from isolatent_train.loop import train
from isolatent_train.posterior import DiagonalGaussian
from isolatent_train.tables import ROWS, metrics_table


class LinearGaussian(nn.Module):
    """z ~ N(0, I), x|z ~ N(W z, I): the true log p(x) is known; q(z|x) is off on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]])

    def encode(self, images: Tensor) -> DiagonalGaussian:
        mean = 0.4 * images.flatten(1) @ self.weight
        return DiagonalGaussian(mean, torch.full_like(mean, -0.2))

    def decode(self, latents: Tensor) -> Tensor:
        return (latents @ self.weight.T)[:, None, None, :]


class UnitGaussian:
    """p(x|z) = N(x; output, I)."""

    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -0.5 * ((outputs - targets).square() + math.log(2 * math.pi)).flatten(2).sum(2)


def test_importance_sampling_finds_the_true_likelihood() -> None:
    model, targets = LinearGaussian(), torch.randn(8, 1, 1, 3, generator=torch.Generator().manual_seed(0))
    found = negative_log_likelihood(
        model,  # type: ignore[arg-type]
        UnitGaussian(),  # type: ignore[arg-type]
        model.encode(targets),
        targets,
        samples=20_000,
        generator=torch.Generator().manual_seed(1),
    )
    covariance = model.weight @ model.weight.T + torch.eye(3)
    true = -MultivariateNormal(torch.zeros(3), covariance).log_prob(targets.flatten(1))
    torch.testing.assert_close(found, true, atol=0.05, rtol=0)


def test_mutual_information_of_perfectly_told_apart_inputs_is_log_n() -> None:
    means = 100.0 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    found = mutual_information(DiagonalGaussian(means, torch.full_like(means, -4)), torch.Generator().manual_seed(0))
    assert found == pytest.approx(math.log(50), abs=1e-3)


def test_mutual_information_of_a_collapsed_posterior_is_zero() -> None:
    prior = DiagonalGaussian(torch.zeros(50, 3), torch.zeros(50, 3))
    assert mutual_information(prior, torch.Generator().manual_seed(0)) == pytest.approx(0, abs=1e-4)


def test_active_units_counts_means_that_vary() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(1000, 3, generator=generator) * torch.tensor([1.0, 0.2, 0.05])
    assert active_units(means) == 2


def test_unmoved_posteriors_are_perfectly_consistent() -> None:
    q = DiagonalGaussian(torch.randn(20, 4), torch.zeros(20, 4))
    found = consistency(q, [q, q])
    assert found["consistency_kl"] == found["consistency_w2_normalized"] == 0
    assert found["retrieval_top1"] == 1


def test_normalised_consistency_does_not_change_when_the_latent_space_shrinks() -> None:
    means, moved = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(0))
    flat = torch.zeros(40, 4)
    wide = consistency(DiagonalGaussian(means, flat), [DiagonalGaussian(moved, flat)])
    narrow = consistency(DiagonalGaussian(means / 9, flat), [DiagonalGaussian(moved / 9, flat)])
    assert narrow["consistency_kl"] == pytest.approx(wide["consistency_kl"] / 81, rel=1e-4)
    assert narrow["consistency_kl_normalized"] == pytest.approx(wide["consistency_kl_normalized"], rel=1e-4)


def test_probe_reads_a_linear_rule_and_not_noise() -> None:
    features = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
    rule, noise = (features[:, 0] > 0).astype(int), np.random.default_rng(1).integers(0, 2, 600)
    assert probe_accuracy((features[:400], rule[:400]), (features[400:], rule[400:])) > 0.95
    assert probe_accuracy((features[:400], noise[:400]), (features[400:], noise[400:])) < 0.65


def test_evaluate_command_measures_a_run_and_its_bundle_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["training.epochs=2", "model.channels=[4, 8]", "model.latent=4"]
    run = train(Config.load("digits", settings), load_data("digits"), tmp_path / "run")
    assert main(["evaluate", str(run), "--samples", "20"]) == 0
    assert main(["export", str(run), "--out", str(tmp_path / "bundle")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), str(tmp_path / "bundle"), "--samples", "20", "--json"]) == 0
    of_run, of_bundle = json.loads(capsys.readouterr().out).values()
    assert of_run == of_bundle
    assert of_run["nll"] > 0
    assert of_run["latent_size"] == 4
    assert json.loads((run / "evaluation.json").read_text())["metrics"] == of_run


def test_table_shows_mean_and_deviation_over_seeds() -> None:
    metrics = dict.fromkeys(ROWS, 0.5)
    table = metrics_table({"cr": [metrics, metrics | {"probe_accuracy": 0.7}]})
    assert "| linear probe, %                    | 60.0 ± 14.1" in table
