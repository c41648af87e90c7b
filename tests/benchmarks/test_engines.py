"""The table of engines: every one within tolerance, on real data where there is some, and the exit code says so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from soak_support import LONG

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "engines.py"
TORCHSERVE = LONG and shutil.which("java") is not None  # it starts slowly; tests/export compares it with torch, too
ENGINES = ["TorchScript", "torch.export (.pt2)", "ONNX Runtime", "isolatent serve", *["TorchServe"][:TORCHSERVE]]


def test_every_engine_agrees_with_torch_on_200_images_and_100_clouds(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--results", tmp_path, *([] if TORCHSERVE else ["--no-torchserve"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "engines.json").read_text())["rows"]
    assert [(row["inputs"], row["engine"]) for row in rows] == [
        (count, engine) for count in (200, 100) for engine in (*ENGINES, "ONNX Runtime, fp16 bundle")
    ]
    assert all(row["within"] for row in rows)
    assert max(row["mean"] for row in rows if row["allowed"] == 1e-5) > 0
    assert done.stdout.count("| within |") == len(rows)
