"""What evaluate, export and quickstart refuse before they compute anything, and what they keep when a disk is full."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isolatent.cli import main
from isolatent_train.config import Config
from isolatent_train.data import load_data
from isolatent_train.loop import train
from isolatent_train.run import RunError

SMALL = ["training.epochs=1", "training.pictures=0", "model.latent=2", "data.limit=64", "training.batch_size=4"]
CLOUDS = ["data.points=16", "model.neighbours=4", "model.channels=[4, 4]", "model.grid=3", "model.folding=8"]
CHEAP = ("--samples", "2", "--device", "cpu")


def photo(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def photos_config(folder: Path) -> Config:
    return Config.load("photos", [*SMALL, f"data.spec=images:{folder}", "data.size=8", "model.channels=[4]"])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A run `photos/run` on 40 files in `photos/files`, of which 28 are trained on."""
    files = tmp_path / "photos" / "files"
    files.mkdir(parents=True)
    for index in range(40):
        photo(files / f"{index}.png", index)
    config = photos_config(files)
    train(config, load_data(config.data), tmp_path / "photos" / "run")
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Config.load("digits", [*SMALL, "model.channels=[4]"])
    return train(config, load_data(config.data), tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is measured fails the test."""
    monkeypatch.setattr("isolatent_train.commands.evaluate.evaluate", pytest.fail)
    monkeypatch.setattr("isolatent_train.commands.export.evaluate", pytest.fail)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_data_that_changed_since_training_is_refused(
    photos: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(photos / "files" / "another.png", 99)
    assert "the data has changed" in refused(capsys, command, photos / "run")


def test_a_bundle_is_measured_with_the_data_of_its_training(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(photos / "run"), "--out", str(photos / "bundle")]) == 0
    assert main(["evaluate", str(photos / "bundle"), *CHEAP]) == 0
    photo(photos / "files" / "another.png", 99)
    assert "the data has changed" in refused(capsys, "evaluate", photos / "bundle", *CHEAP)


def test_unchanged_data_and_data_that_is_named_are_measured(photos: Path) -> None:
    assert main(["evaluate", str(photos / "run"), *CHEAP]) == 0
    photo(photos / "files" / "another.png", 99)
    assert main(["evaluate", str(photos / "run"), "--data", f"images:{photos / 'files'}", *CHEAP]) == 0


def test_a_run_is_not_continued_with_other_data(photos: Path) -> None:
    config = photos_config(photos / "files")
    train(config, load_data(config.data), photos / "run", resume=True)
    photo(photos / "files" / "another.png", 99)
    with pytest.raises(RunError, match="the data has changed"):
        train(config, load_data(config.data), photos / "run", resume=True)


@pytest.mark.usefixtures("unmeasured")
def test_no_report_is_made_of_images_and_clouds(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config.load("shapes", [*SMALL, *CLOUDS])
    clouds = train(config, load_data(config.data), tmp_path / "clouds")
    assert "point clouds" in refused(capsys, "evaluate", digits, clouds, "--report", tmp_path / "both.html")


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("option", ["--name", "--version"])
@pytest.mark.parametrize("value", ["my model", "", "line\n", "../up"])
def test_export_refuses_names_that_no_manifest_takes(
    digits: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert option in refused(capsys, "export", digits, option, value)


@pytest.mark.usefixtures("unmeasured")
def test_export_asks_first_whether_its_folders_are_free(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, file in (("old", "manifest.json"), ("torchserve/digits", "config.properties"), ("thesis", "thesis.txt")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).touch()
    assert "--overwrite" in refused(capsys, "export", digits, "--out", "old")
    assert "--overwrite" in refused(capsys, "export", digits, "--out", "new", "--torchserve")
    assert "--overwrite" not in refused(capsys, "export", digits, "--out", "thesis", "--overwrite")


def full(*_arguments: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_figures_that_cannot_be_kept_are_printed(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", full)
    before = sorted(digits.iterdir())
    assert main(["evaluate", str(digits), *CHEAP]) == 1
    printed = capsys.readouterr()
    assert "| KL to the prior, nats" in printed.out
    assert printed.err.count("\n") == 1
    assert f"{digits / 'evaluation.json'}: No space left on device" in printed.err
    assert sorted(digits.iterdir()) == before


def test_quickstart_takes_what_is_given_twice_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("isolatent_train.commands.quickstart._draw", full)  # after the table
    arguments = ["--recipes", "digits", "digits", "--arms", "base", "base", "--seeds", "0", "0", "--samples", "2"]
    settings = [part for setting in [*SMALL, "model.channels=[4]"] for part in ("--set", setting)]
    with pytest.raises(OSError, match="No space left"):
        main(["quickstart", "--out", str(tmp_path), *arguments, *settings])
    printed = capsys.readouterr().out
    assert "1 seed," in printed
    assert "±" not in printed
    assert len(list((tmp_path / "runs").iterdir())) == printed.count(": 1 epochs") == 1
    (kept,) = tmp_path.glob("runs/*/evaluation.json")
    assert json.loads(kept.read_text())["metrics"]["nll_samples"] == 2


def test_quickstart_refuses_no_samples_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--samples 0" in refused(capsys, "quickstart", "--out", tmp_path / "out", "--samples", "0")
    assert not (tmp_path / "out").exists()
