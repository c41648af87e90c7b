"""Networks of point clouds: any number of points, any order, exported with everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isolatent_export.bundle import Bundle
from isolatent_export.manifest import PointCloudInput
from isolatent_export.verify import load_verified, verify
from isolatent_train.bounds import ELBO, IWAE
from isolatent_train.bundling import export_run
from isolatent_train.config import Config, ConfigError, ModelSection
from isolatent_train.consistency import Objective
from isolatent_train.data import load_data
from isolatent_train.data.splits import Labelled, Splits
from isolatent_train.evaluation import evaluate
from isolatent_train.evaluation.encoding import PAIRS
from isolatent_train.fitting import require_fitting
from isolatent_train.geometry import chamfer_distance
from isolatent_train.likelihoods import Chamfer
from isolatent_train.loop import train
from isolatent_train.models import VAE, build_model
from isolatent_train.run import Trained

SPEC = PointCloudInput(points=64)


def model(net: str = "folding", **settings: Any) -> VAE:
    section = {"net": net, "latent": 6, "channels": (8, 12, 16), "neighbours": 5, "grid": 5, "folding": 8} | settings
    torch.manual_seed(0)
    return build_model(ModelSection.model_validate(section), SPEC, Chamfer(0.05))


def clouds(count: int = 2, points: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, points, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("net", ["folding", "dgcnn"])
@pytest.mark.parametrize("points", [5, 64, 200])
def test_any_number_of_points_becomes_one_code_and_a_folded_square(net: str, points: int) -> None:
    made = model(net).eval()
    posterior = made.encode(clouds(points=points))
    assert posterior.mean.shape == posterior.log_variance.shape == (2, 6)
    assert made.decode(posterior.mode()).shape == (2, 25, 3)


@pytest.mark.parametrize("net", ["folding", "dgcnn"])
def test_the_order_of_the_points_does_not_matter(net: str) -> None:
    made = model(net).eval()
    shuffled = clouds()[:, torch.randperm(64, generator=torch.Generator().manual_seed(3))]
    torch.testing.assert_close(made.encode(shuffled).mean, made.encode(clouds()).mean, atol=1e-5, rtol=1e-4)


def test_nothing_encodes_more_pairs_of_points_at_once_than_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[int] = []
    encode = VAE.encode

    def spied(self: VAE, inputs: Tensor) -> Any:
        pairs.append(inputs.shape[0] * inputs.shape[1] ** 2)
        return encode(self, inputs)

    small = ["data.points=512", "model.channels=[4]", "model.neighbours=4", "model.grid=3", "model.folding=8"]
    quick = ["data.limit=32", "training.epochs=1", "training.pictures=1", "objective.arm=base"]
    config = Config.load("shapes", [*small, *quick])
    splits = load_data(config.data)
    assert len(splits.validation) * 512**2 > 2 * PAIRS
    monkeypatch.setattr(VAE, "encode", spied)
    train(config, splits, tmp_path / "run")
    assert len(list((tmp_path / "run" / "pictures").iterdir())) == 3
    assert max(pairs) <= PAIRS


@pytest.mark.parametrize("channels", [(8,), (8, 16), (8, 8, 8, 16)])
@pytest.mark.parametrize("net", ["folding", "dgcnn"])
def test_nets_of_any_depth_learn_to_reconstruct(net: str, channels: tuple[int, ...]) -> None:
    made, likelihood, inputs = model(net, channels=channels), Chamfer(0.1), clouds(8) * torch.tensor([1.0, 0.3, 0.1])
    optimiser = torch.optim.Adam(made.parameters(), lr=5e-3)
    errors = []
    for _ in range(40):
        outputs = made.decode(made.encode(inputs).mean)
        loss = -likelihood.log_prob(outputs[None], inputs).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(float(chamfer_distance(inputs, outputs.detach()).mean()))
    assert errors[-1] < 0.7 * errors[0]


def test_the_chamfer_energy_is_that_of_gaussians_around_nearest_points() -> None:
    outputs, targets = clouds(3, points=50)[None], clouds(3, seed=1)
    expected = -64 / (4 * 0.2**2) * chamfer_distance(outputs[0], targets)
    torch.testing.assert_close(Chamfer(0.2).log_prob(outputs, targets)[0], expected)


@pytest.mark.parametrize("bound", [ELBO(beta=2.0), IWAE(3)])
def test_every_bound_takes_clouds(bound: ELBO | IWAE) -> None:
    generator = torch.Generator().manual_seed(0)
    loss = Objective(bound, 0.5)(model(), Chamfer(0.1), clouds(4), clouds(4, seed=1), generator)
    loss.value.backward()
    assert loss.terms["consistency"] > 0


def test_precision_of_distances_survives_bf16() -> None:
    made = model().eval()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = made.encode(clouds()).mean.detach()
    assert float((mixed - made.encode(clouds()).mean.detach()).abs().max()) < 0.1


def cloud_config(*settings: str) -> Config:
    tiny = ["model.channels=[8,16]", "model.latent=4", "model.grid=6", "model.folding=8", "model.neighbours=4"]
    quick = ["data.points=48", "training.epochs=2", "training.tracker=none", "training.pictures=1"]
    return Config.load("shapes", [*tiny, *quick, *settings])


@pytest.fixture(scope="module")
def splits() -> Splits:
    found = load_data(cloud_config().data)
    some = torch.arange(0, 150)

    def part(data: Labelled) -> Labelled:
        return data[some[: min(len(data), 150)]]

    return Splits(found.spec, part(found.train), part(found.validation), part(found.test), found.classes)


@pytest.fixture(scope="module")
def trained(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained.open(train(cloud_config(), splits, tmp_path_factory.mktemp("clouds") / "run"))


def test_a_run_leaves_pictures_of_clouds(trained: Trained) -> None:
    assert len(list((trained.path / "pictures").glob("*.png"))) >= 3


def test_metrics_of_clouds_have_a_chamfer_distance_and_no_likelihood(trained: Trained, splits: Splits) -> None:
    metrics = evaluate(trained, splits)
    assert "nll" not in metrics
    assert 0 < metrics["chamfer"] < 2
    assert 0 <= metrics["probe_accuracy"] <= 1
    assert set(metrics["consistency_by_strength"]) >= {"rotation", "tilt", "jitter", "dropout", "occlusion"}


@pytest.mark.parametrize("net", ["folding", "dgcnn"])
def test_every_net_exports_with_any_number_of_points(net: str, splits: Splits, tmp_path: Path) -> None:
    config = cloud_config(f"model.net={net}", "training.epochs=1", "training.pictures=0")
    run = Trained.open(train(config, splits, tmp_path / "run"))
    bundle = export_run(run, splits, {}, tmp_path / "bundle")
    assert not verify(bundle, torchscript=True).problems
    runtime = load_verified(Bundle.open(bundle.path))
    for points in (7, 48, 300):
        cloud = clouds(3, points=points)
        mean, log_variance = runtime.encode(cloud.numpy())
        expected = run.model.encode(cloud)
        np.testing.assert_allclose(mean, expected.mean.detach().numpy(), atol=1e-3)
        np.testing.assert_allclose(log_variance, expected.log_variance.detach().numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("model.net=conv", "set model.net=folding or dgcnn"),
        ("likelihood.kind=bernoulli", "set likelihood.kind=chamfer"),
        ("transforms=paper", "kinds that fit"),
        ("model.neighbours=60", "fewer neighbours"),
    ],
)
def test_settings_of_images_are_refused_for_clouds_with_the_remedy(setting: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        require_fitting(cloud_config(setting), PointCloudInput(points=48))
