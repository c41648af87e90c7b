"""The benchmark of batch jobs from end to end, on few files. What it measures is not judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from soak_support import LONG

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "jobs.py"


def run(part: str, out: Path, *options: str | Path) -> dict[str, Any]:
    """One part, on made-up inputs; what it has written."""
    command = [sys.executable, SCRIPT, part, "--rounds", "1", "--out", out, "--page", out / "page.md", *options]
    environment = {name: value for name, value in os.environ.items() if name != "ISOLATENT_DATA"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((out / f"jobs-{part}.json").read_text())
    assert found["machine"]["cores"] > 0
    return found


def test_contestants_are_measured_on_the_same_files(bundle_path: Path, tmp_path: Path) -> None:
    only = ["limit", "local", "post"]
    found = run("images", tmp_path, "--model", bundle_path, "--items", "130", "--only", *only)
    assert (found["items"], list(found["rates"])) == (130, only)
    assert all(rate["median"] > 0 for rate in found["rates"].values())
    assert "| `isolatent embed` |" in (tmp_path / "page.md").read_text()


@pytest.mark.skipif(not LONG, reason="slow: make soak")
def test_ray_is_measured_on_clouds(cloud_bundle_path: Path, tmp_path: Path) -> None:
    only = ["ray", "naive-ray"]
    found = run("clouds", tmp_path, "--cloud-model", cloud_bundle_path, "--items", "130", "--only", *only)
    assert (found["items"], list(found["rates"])) == (130, only)
    assert "| Ray Data, written naively |" in (tmp_path / "page.md").read_text()


@pytest.mark.skipif(not LONG, reason="slow: make soak")
def test_memory_is_measured_by_the_number_of_files(bundle_path: Path, tmp_path: Path) -> None:
    found = run("memory", tmp_path, "--model", bundle_path, "--memory-items", "100", "200")
    assert [job["items"] for job in found["jobs"]] == [100, 200]
    assert all(job["peak_mb"] > 50 for job in found["jobs"])


@pytest.mark.skipif(not LONG, reason="slow: make soak")
def test_latency_is_measured_with_a_job_and_without(bundle_path: Path, tmp_path: Path) -> None:
    found = run("beside", tmp_path, "--model", bundle_path, "--memory-items", "20000", "--seconds", "1")
    (row,) = found["rounds"]
    assert row["idle"]["answered"] == row["idle"]["requests"] > 0
    assert row["job"]["p99"] > 0
    assert row["job_items"] > 0
