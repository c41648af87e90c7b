"""The benchmark of training speed from end to end, short, and the turns that it is made of. Speeds are not judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from turns import Turn, contest, ratio  # noqa: E402


def worker(updates: int, nap: float, log: Path, turn: Turn) -> int:
    for _ in range(updates):
        with log.open("a") as lines:
            lines.write(f"{nap}\n")
        time.sleep(nap)
        turn.update()
    return os.getpid()


def test_one_contestant_works_at_a_time_there_and_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    contestants = {"slow": partial(worker, 6, 0.02, log), "fast": partial(worker, 6, 0.005, log)}
    seconds, returned = contest(contestants, turns=3, length=2)
    assert log.read_text().split() == [*["0.02"] * 2, *["0.005"] * 4, *["0.02"] * 4, *["0.005"] * 2]
    assert len({os.getpid(), *returned.values()}) == 3
    faster, (low, high) = ratio(seconds["slow"], seconds["fast"])
    assert low <= faster <= high
    assert faster == pytest.approx(sum(seconds["slow"]) / sum(seconds["fast"]))


@pytest.mark.parametrize(
    ("updates", "nap", "message"),
    [(3, 0, "ended after 2 of 4 updates"), (6, 0, "more than 4 updates"), (4, -1, "ValueError: sleep length")],
)
def test_who_breaks_the_rules_is_named(updates: int, nap: float, message: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=f"(?s)one.*{message}|{message}.*one"):
        contest({"one": partial(worker, updates, nap, tmp_path / "log")}, turns=2, length=2)


def test_cases_are_measured_in_one_run(tmp_path: Path) -> None:
    short = ["--limit", "256", "--epochs", "1", "--turn", "1", "--set", "model.channels=[4,4,4]"]
    command = [
        sys.executable,
        BENCHMARKS / "training_speed.py",
        *short,
        "--only",
        "VAE: isolatent",
        "VAE: pythae",
        "--results",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    cases = json.loads((tmp_path / "training_speed.json").read_text())["cases"]
    assert set(cases) - {"VAE: pythae"} == {"VAE: bare loop, eager fp32", "VAE: isolatent"}
    for name, case in cases.items():
        assert case["interval"][0] <= case["ratio_to_bare"] <= case["interval"][1]
        assert len(case["seconds_of_turns"]) == 2
        assert (case["elbo"] is None) == (name != "VAE: isolatent")
        assert f"{case['ratio_to_bare']:.3f}" in next(line for line in done.stdout.splitlines() if name in line)
