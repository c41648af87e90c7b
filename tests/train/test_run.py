"""A run's directory: what is damaged is named, and what cannot be written costs nothing that was there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from isolatent.cli import main
from isolatent_train.config import Config
from isolatent_train.data import load_data
from isolatent_train.loop import train
from isolatent_train.run import RunError, Trained

SMALL = ["training.epochs=1", "training.pictures=0", "model.latent=2", "model.channels=[4]", "data.limit=64"]
CONFIG = Config.load("digits", SMALL)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return train(CONFIG, load_data(CONFIG.data), tmp_path / "run")


@pytest.mark.parametrize("file", ["run.json", "config.json"])
@pytest.mark.parametrize("content", ["", "[]", '{"input": {}}', "\x00" * 8])
def test_a_damaged_file_is_named_and_left_alone(run: Path, file: str, content: str) -> None:
    (run / file).write_text(content)
    with pytest.raises(RunError, match=r"cannot be read|started with"):
        train(CONFIG, load_data(CONFIG.data), run, resume=True)
    with pytest.raises(RunError, match=f"{file}: cannot be read|configuration do not load"):
        Trained.open(run)
    assert (run / file).read_text() == content


def test_what_a_run_knows_of_its_data_is_their_sha256(run: Path) -> None:
    fingerprint = load_data(CONFIG.data).fingerprint()
    assert json.loads((run / "run.json").read_text())["training"]["data_sha256"] == fingerprint
    assert Trained.open(run).training.data_sha256 == fingerprint


def test_a_full_disk_is_one_line_and_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for setting in [*SMALL, "training.epochs=2"] for part in ("--set", setting)]
    command = ["train", "digits", *settings, "--out", str(tmp_path / "run"), "--device", "cpu", "--resume"]
    sync, synced = os.fsync, []

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 3:  # run.json, config.json and the first checkpoint were written
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        assert main(command) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left on device" in message
    assert "--resume" in message
    assert main(command) == 0
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    ]
    assert [row["epoch"] for row in rows] == [1, 2]


def test_data_may_be_named_in_any_letters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "photos", "--data", "images:ñ-日本-😀", "--out", str(tmp_path / "run")]) == 1
    assert "ñ-日本-😀" in capsys.readouterr().err
