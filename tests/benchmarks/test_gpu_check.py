"""The check of a GPU: without one it says so; its steps work on a processor."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from isolatent_train.config import Config
from isolatent_train.data import load_data
from isolatent_train.loop import train

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


@pytest.mark.skipif(bool(shutil.which("nvidia-smi")) or torch.cuda.is_available(), reason="there may be a GPU")
def test_without_a_gpu_nothing_is_measured_and_said_so(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--results", tmp_path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "no NVIDIA GPU: nothing measured\n")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on a few digits."""
    config = Config.load(
        "digits", ["data.limit=64", "training.epochs=1", "training.tracker=none", "model.channels=[8]"]
    )
    return train(config, load_data(config.data), tmp_path_factory.mktemp("runs") / "small", resume=False)


def test_every_step_works_on_a_processor(small_run: Path, tmp_path: Path) -> None:
    short = ["--run", small_run, "--device", "cpu", "--batches", "3", "--seconds", "0"]
    command = [sys.executable, SCRIPT, "--results", tmp_path, *short]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "gpu_check-cpu.json").read_text())
    (model,) = found["models"]
    ways = [
        f"{precision}, {mode}" for precision in ("fp32", "fp16") for mode in ("arrays as they come", "bound buffers")
    ]
    engines = {*(f"ONNX Runtime, {way}" for way in ways), "torch", "torch.compile", "TorchScript"}
    assert {row["engine"] for row in model["speed"]} | model["left_out"].keys() == engines
    assert {row["batch"] for row in model["speed"]} == {3}
    assert min(row["items"] for row in model["speed"]) > 0
    assert (found["device"], len(model["parity"]), model["problems"]) == ("cpu", 4 * 3, [])
