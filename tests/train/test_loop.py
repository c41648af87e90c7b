"""Runs: reproducible, resumable to the bit, stopped by nonsense, never written over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from isolatent_train.checkpoint import State
from isolatent_train.config import Config, DataSection
from isolatent_train.data import DataError, Splits, load_data
from isolatent_train.loop import DivergenceError, train
from isolatent_train.run import RunError, Trained

SMALL = ["training.epochs=3", "model.channels=[4, 8]", "model.latent=4"]


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_data(DataSection())


class KilledError(Exception):
    pass


def kill_at(update: int) -> Callable[[State], None]:
    def stop(state: State) -> None:
        if state.update == update:
            raise KilledError

    return stop


def figures(run: Path) -> list[dict[str, float]]:
    """The history without its timings."""
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


def test_the_digits_split_is_fixed_and_disjoint(digits: Splits) -> None:
    assert digits.counts() == {"train": 1197, "validation": 200, "test": 400}
    again = load_data(DataSection())
    assert torch.equal(again.test.inputs, digits.test.inputs)
    assert digits.test.labels is not None
    assert digits.test.labels.bincount(minlength=10).min() >= 25


@pytest.mark.parametrize("killed_after", [7, 20, 36])  # within an epoch, after a mid-epoch checkpoint, after an epoch
def test_an_interrupted_run_ends_with_the_bits_of_an_uninterrupted_one(
    digits: Splits, tmp_path: Path, killed_after: int
) -> None:
    config = Config.load("digits", [*SMALL, "training.checkpoint_updates=5"])
    whole = train(config, digits, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(config, digits, tmp_path / "killed", on_update=kill_at(killed_after))
    resumed = train(config, digits, tmp_path / "killed", resume=True)
    assert (resumed / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert figures(resumed) == figures(whole)


def test_kill_9_and_resume_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "isolatent", "train", "digits", *(f"--set={setting}" for setting in SMALL)]
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, capture_output=True)
    out = tmp_path / "killed"
    process = subprocess.Popen([*command, "--out", out, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()  # the first epoch is over
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    subprocess.run([*command, "--out", out, "--resume"], check=True, capture_output=True)
    assert (out / "weights.safetensors").read_bytes() == (tmp_path / "whole" / "weights.safetensors").read_bytes()


def test_the_seed_decides_the_weights(digits: Splits, tmp_path: Path) -> None:
    runs = {
        seed: train(Config.load("digits", [*SMALL, f"seed={seed}"]), digits, tmp_path / str(seed)) for seed in (0, 1)
    }
    first, second = ((run / "weights.safetensors").read_bytes() for run in runs.values())
    assert first != second


@pytest.mark.parametrize("arm", ["base", "augmentation", "cr"])
def test_every_arm_learns(digits: Splits, tmp_path: Path, arm: str) -> None:
    run = train(Config.load("digits", [*SMALL, "training.epochs=5", f"objective.arm={arm}"]), digits, tmp_path / arm)
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert history[-1]["validation_elbo"] > history[0]["validation_elbo"] + 10
    assert ("train_consistency" in history[0]) == (arm != "base")


def test_a_run_that_diverges_stops_and_says_what_to_lower(digits: Splits, tmp_path: Path) -> None:
    config = Config.load("digits", [*SMALL, "training.learning_rate=1e30", "training.clip_norm=1e30"])
    with pytest.raises(DivergenceError, match=r"lower training\.learning_rate"):
        train(config, digits, tmp_path / "run")


def test_an_existing_run_is_never_written_over(digits: Splits, tmp_path: Path) -> None:
    config = Config.load("digits", [*SMALL, "training.epochs=1"])
    train(config, digits, tmp_path / "run")
    with pytest.raises(RunError, match="continue it with --resume"):
        train(config, digits, tmp_path / "run")
    with pytest.raises(RunError, match="was started with seed=0; continue with the same"):
        train(config.model_copy(update={"seed": 1}), digits, tmp_path / "run", resume=True)


def test_a_foreign_folder_is_never_written_to(digits: Splits, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="is not empty and holds no run"):
        train(Config.load("digits", SMALL), digits, tmp_path)


def test_a_broken_checkpoint_is_named(digits: Splits, tmp_path: Path) -> None:
    config = Config.load("digits", SMALL)
    with pytest.raises(KilledError):
        train(config, digits, tmp_path / "run", on_update=kill_at(20))
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK garbage")
    with pytest.raises(RunError, match=r"checkpoint\.pt: cannot resume"):
        train(config, digits, tmp_path / "run", resume=True)


def test_an_incomplete_run_is_not_mistaken_for_a_trained_model(digits: Splits, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(Config.load("digits", SMALL), digits, tmp_path / "run", on_update=kill_at(20))
    with pytest.raises(RunError, match="not complete"):
        Trained.open(tmp_path / "run")


def test_a_damaged_description_of_a_run_is_named(digits: Splits, tmp_path: Path) -> None:
    run = train(Config.load("digits", [*SMALL, "training.epochs=1"]), digits, tmp_path / "run")
    for content in ("{", "[]", "{}"):
        (run / "run.json").write_text(content)
        with pytest.raises(RunError, match=r"run\.json: cannot be read .*; train again"):
            Trained.open(run)


def test_too_few_images_for_a_batch_is_said(digits: Splits, tmp_path: Path) -> None:
    few = Splits(digits.spec, digits.train[:3], digits.validation, digits.test)
    with pytest.raises(DataError, match="3 training images, fewer than one batch of 64"):
        train(Config.load("digits", SMALL), few, tmp_path / "run")


def test_unknown_data_lists_the_known_sources() -> None:
    with pytest.raises(DataError, match=r"unknown source 'digit'; known are .*digits"):
        load_data(DataSection(spec="digit"))
