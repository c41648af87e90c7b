"""The benchmarks of point clouds from end to end, short. What they measure is not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pointcloud.py"


def run(part: str, name: str, out: Path, *options: str | Path) -> dict[str, Any]:
    """The rates of one part; page.md has them, too."""
    short = ["--rounds", "1", "--seconds", "0.1", "--out", out, "--page", out / "page.md"]
    done = subprocess.run([sys.executable, SCRIPT, part, *short, *options], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    rates: dict[str, Any] = json.loads((out / f"{name}.json").read_text())["clouds_per_second"]
    assert all(rate["median"] > 0 for rate in rates.values())
    assert all(f"| {case} | " in (out / "page.md").read_text() for case in rates)
    return rates


def test_the_service_is_measured_beside_its_runtime(cloud_bundle_path: Path, tmp_path: Path) -> None:
    cases = list(run("serve", "pointcloud-serving", tmp_path, cloud_bundle_path))
    assert any(case.startswith("ONNX Runtime alone") for case in cases)
    assert any(case.startswith("service, npy") for case in cases)


def test_training_is_measured_by_net_arm_and_points(tmp_path: Path) -> None:
    assert list(run("train", "pointcloud-training", tmp_path, "--points", "32")) == [
        "folding, base, 32 points",
        "folding, cr, 32 points",
        "dgcnn, base, 32 points",
        "dgcnn, cr, 32 points",
    ]
