"""Features of the loop, each on its own: precision, layout, compilation, averaging, stopping, pictures, processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from isolatent_train.config import Config, DataSection
from isolatent_train.data import Splits, load_data
from isolatent_train.loop import train
from isolatent_train.run import RunError, Trained
from soak_support import LONG

SMALL = ["training.epochs=2", "model.channels=[4, 8]", "model.latent=4", "training.tracker=none"]


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_data(DataSection())


def run(digits: Splits, out: Path, *settings: str, resume: bool = False) -> tuple[Path, list[dict[str, Any]]]:
    folder = train(Config.load("digits", [*SMALL, *settings]), digits, out, resume=resume)
    return folder, [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "setting", ["training.precision=bf16", "training.channels_last=true", "training.views_together=false"]
)
def test_fast_settings_learn_as_well(digits: Splits, tmp_path: Path, setting: str) -> None:
    _, plain = run(digits, tmp_path / "plain")
    folder, fast = run(digits, tmp_path / "fast", setting)
    assert fast[-1]["validation_elbo"] == pytest.approx(plain[-1]["validation_elbo"], rel=0.03)
    assert {value.dtype for value in load_file(folder / "weights.safetensors").values()} <= {torch.float32, torch.int64}


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler: apt-get install g++")
@pytest.mark.filterwarnings("default")  # the compiler warns about its own insides
def test_compiled_networks_learn_as_well_and_leave_the_same_files(digits: Splits, tmp_path: Path) -> None:
    plain, expected = run(digits, tmp_path / "plain")
    folder, compiled = run(digits, tmp_path / "compiled", "training.compile=true")
    assert compiled[-1]["validation_elbo"] == pytest.approx(expected[-1]["validation_elbo"], rel=0.01)
    assert load_file(folder / "weights.safetensors").keys() == load_file(plain / "weights.safetensors").keys()


def test_the_moving_average_is_what_the_run_leaves_and_resumes(digits: Splits, tmp_path: Path) -> None:
    last, _ = run(digits, tmp_path / "last")
    averaged, _ = run(digits, tmp_path / "averaged", "training.ema=0.9")
    one, other = (load_file(folder / "weights.safetensors") for folder in (last, averaged))
    assert one.keys() == other.keys()
    assert not torch.equal(one["encoder.head.linear.weight"], other["encoder.head.linear.weight"])
    before = (averaged / "weights.safetensors").read_bytes()
    (averaged / "weights.safetensors").unlink()
    run(digits, averaged, "training.ema=0.9", resume=True)
    assert (averaged / "weights.safetensors").read_bytes() == before


def test_early_stopping_leaves_the_best_weights(digits: Splits, tmp_path: Path) -> None:
    settings = [
        "training.epochs=30",
        "training.early_stopping=1",
        "training.learning_rate=0.05",
        "training.schedule=constant",
    ]
    folder, history = run(digits, tmp_path / "run", *settings)
    assert len(history) < 30
    training = Trained.open(folder).training
    assert (training.epochs, training.updates) == (len(history), history[-1]["update"])
    assert history[-1]["validation_elbo"] <= history[-2]["validation_elbo"]
    assert (folder / "weights.safetensors").read_bytes() == (folder / "best.safetensors").read_bytes()


def test_pictures_are_drawn_while_training(digits: Splits, tmp_path: Path) -> None:
    folder, _ = run(digits, tmp_path / "run", "training.pictures=2")
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert names == [f"epoch0002-{name}.png" for name in ("reconstructions", "samples", "traversal")]


def test_tensorboard_receives_figures_and_pictures(digits: Splits, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, history = run(digits, tmp_path / "run", "training.tracker=tensorboard", "training.pictures=1")
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    scalars = events.Scalars("validation_elbo")
    assert [event.step for event in scalars] == [row["update"] for row in history]
    assert scalars[-1].value == pytest.approx(history[-1]["validation_elbo"])
    assert "reconstructions" in events.Tags()["images"]


def test_a_tracker_that_is_not_installed_is_named(
    digits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RunError, match="pip install wandb"):
        run(digits, tmp_path / "run", "training.tracker=wandb")
    run(digits, tmp_path / "run", "training.epochs=1")  # nothing was left that is in the way


def test_a_missing_compiler_is_said_before_anything_is_written(
    digits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RunError, match="apt-get install g"):
        run(digits, tmp_path / "run", "training.compile=true")
    assert not (tmp_path / "run").exists()


def test_what_pictures_fail_of_does_not_cost_the_epoch(
    digits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.delattr("isolatent_train.loop.save_grid")
        with pytest.raises(NameError):
            run(digits, tmp_path / "run", "training.pictures=1")
    _, history = run(digits, tmp_path / "run", "training.pictures=1", resume=True)
    assert [row["epoch"] for row in history] == [1, 2]
    assert {path.name[:9] for path in (tmp_path / "run" / "pictures").iterdir()} == {"epoch0002"}


def test_an_update_that_is_left_out_leaves_no_trace(tmp_path: Path) -> None:
    settings = ["data.points=32", "data.normalization=none", "training.batch_size=16", "training.channels_last=true"]
    config = Config.load("shapes", [*SMALL, *settings, "data.limit=160", "model.grid=4", "objective.arm=base"])
    splits = load_data(config.data)
    splits.train.inputs[0, 0, 0] = 1e20  # as scanners mark what they did not see
    folder = train(config, splits, tmp_path / "run")
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["skipped"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in load_file(folder / "weights.safetensors").values())
    assert rows[0]["train_bound"] == pytest.approx(rows[0]["train_reconstruction"] - rows[0]["train_kl"])
    assert rows[1]["train_reconstruction"] == pytest.approx(rows[1]["validation_reconstruction"], rel=0.3)


@pytest.mark.skipif(not LONG, reason="slow: make soak")
@pytest.mark.timeout(300)
def test_three_processes_resume_to_the_same_bits(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    command += ["-m", "isolatent", "train", "digits", *(f"--set={s}" for s in SMALL), "--device=cpu"]
    command += ["--set=training.batch_size=63", "--set=training.checkpoint_updates=5", "--resume", "--out"]
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    with subprocess.Popen([*command, tmp_path / "killed"], stderr=subprocess.DEVNULL) as process:
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.001)
        process.terminate()
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    subprocess.run([*command, tmp_path / "killed"], check=True, capture_output=True)
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    "settings",
    [
        ["objective.bound=iwae", "objective.samples=3"],
        ["objective.beta=4", "objective.beta_warmup=0.5"],
        ["objective.arm=triplet"],
        ["likelihood.kind=logistic", "model.net=residual", "transforms=photo"],
    ],
)
def test_every_family_trains(digits: Splits, tmp_path: Path, settings: list[str]) -> None:
    folder, history = run(digits, tmp_path / "run", *settings)
    assert history[-1]["validation_elbo"] > history[0]["validation_elbo"]
    assert Trained.open(folder).config.objective.family in {"vae", "beta-vae", "iwae"}


@pytest.mark.timeout(300)
def test_two_processes_train_one_model(digits: Splits, tmp_path: Path) -> None:
    alone, _ = run(digits, tmp_path / "alone")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "isolatent", "train", "digits", *(f"--set={s}" for s in SMALL), "--device=cpu"]
    done = subprocess.run([*command, "--out", tmp_path / "both"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [
        [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
        for out in (alone, tmp_path / "both")
    ]
    assert [row["update"] for row in rows[0]] == [row["update"] for row in rows[1]]
    assert rows[1][-1]["validation_elbo"] == pytest.approx(rows[0][-1]["validation_elbo"], rel=0.05)
    assert Trained.open(tmp_path / "both").training.examples == digits.counts()


def test_a_batch_that_does_not_divide_among_the_processes_is_said() -> None:
    from isolatent_train.config import TrainingSection
    from isolatent_train.distributed import Team
    from isolatent_train.loop import _updates_per_epoch

    with pytest.raises(RunError, match="make it a multiple of 3"):
        _updates_per_epoch(TrainingSection(batch_size=64), 1000, Team(0, 3))
