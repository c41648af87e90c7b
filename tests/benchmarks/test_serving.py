"""The serving benchmarks from end to end: servers that run, wrk, results, page. What they measure is not judged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from soak_support import LONG

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


def run(name: str, out: Path, *options: str | Path) -> dict[str, Any]:
    command = [sys.executable, BENCHMARKS / f"{name}.py", *options, "--out", out, "--page", out / "page.md"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return found


def test_servers_that_answer_alike_are_measured_side_by_side(bundle_path: Path, tmp_path: Path) -> None:
    short = ["--rounds", "1", "--seconds", "1", "--warm-up", "1", "--kinds", "bulk"]
    only = ["--only", "isolatent,", "FastAPI"]
    found = run("serving", tmp_path, "--models", bundle_path, *short, *only)
    (model,) = found["models"].values()
    for case in model["cases"].values():
        assert set(case["results"]) == {"isolatent, JSON answers", "FastAPI route"}
        assert all(result["requests_per_second"]["median"] > 0 for result in case["results"].values())
    assert min(each["median"] for each in model["limits"].values()) > 0
    assert "| FastAPI route |" in (tmp_path / "page.md").read_text()


@pytest.mark.skipif(not LONG, reason="slow: make soak")
def test_a_service_is_driven_past_its_capacity(bundle_path: Path, tmp_path: Path) -> None:
    short = ["--levels", "3", "--seconds", "1", "--calm", "1", "--settle", "1", "--workers", "1", "--max-queue", "16"]
    found = run("overload", tmp_path, "--models", bundle_path, *short)
    (model,) = found["models"].values()
    (level,) = model["levels"]
    assert sum(level["statuses"].values()) == pytest.approx(3 * model["capacity"], rel=0.2)
    assert level["without_retry_after"] == 0
    assert "3x" in (tmp_path / "page.md").read_text()
