"""`python -m isolatent_serve.jobs`: a job in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isolatent_serve.jobs import JobFolder, JobSpec, create, local
from jobs_core_support import job, pictures, results
from serve_support import all_gone, descendants

COMMAND = [sys.executable, "-W", "error", "-m", "isolatent_serve.jobs"]


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *arguments, "--processes", "1"], stdout=subprocess.PIPE, text=True)


def ran(*arguments: str | Path) -> tuple[int, list[dict[str, Any]]]:
    with started(*arguments) as process:
        assert process.stdout
        events = [json.loads(line) for line in process.stdout]
    return process.returncode, events


def wait_for_a_part(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    while json.loads(process.stdout.readline())["shards"][0] < 1:
        pass


@pytest.mark.parametrize(("bad", "code"), [(0, 0), (10, 1)])
def test_a_job_is_planned_run_and_finished(tmp_path: Path, bundle_path: Path, bad: int, code: int) -> None:
    images = pictures(tmp_path / "images", 25, bad=bad)
    spec = JobSpec(model=bundle_path, inputs=(str(images),), device="cpu", shard_items=10)
    folder = create(spec, tmp_path / "job")
    failed = 2 if bad else 0
    returned, events = ran(folder.path)
    assert returned == code
    assert events[0] == {"state": "running", "total": None, "succeeded": 0, "failed": 0, "shards": [0, None]}
    expected = {"state": "succeeded", "total": 25, "succeeded": 25 - failed, "failed": failed, "shards": [3, 3]}
    assert events[-1] == expected
    assert (folder.path / "_listing.json").exists()


def test_what_cannot_be_done_says_why(tmp_path: Path) -> None:
    code, events = ran(tmp_path)
    assert (code, events[-1]["state"]) == (2, "failed")
    assert "no job; name the folder of one" in events[-1]["error"]


def test_what_another_process_works_on_is_told_apart_from_words_like_it(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 3))
    with folder.locked():
        code, events = ran(folder.path)
    assert (code, events[-1]["state"], events[-1]["busy"]) == (2, "failed", True)
    column = JobSpec(model=bundle_path, inputs=(str(tmp_path / "works on this job"),))
    code, events = ran(create(column, tmp_path / "other").path)
    assert (code, events[-1]["busy"]) == (2, False)
    assert "works on this job" in events[-1]["error"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_another_run_goes_on(tmp_path: Path, bundle_path: Path, number: signal.Signals) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 100))
    with started(folder.path) as process:
        wait_for_a_part(process)
        below = descendants(process.pid)
        process.send_signal(number)
        assert process.stdout
        last = json.loads(process.stdout.readlines()[-1])
    assert (process.returncode, last["state"]) == (143, "cancelled")
    assert 1 <= last["shards"][0] < 10
    assert last["succeeded"] == 10 * last["shards"][0]
    assert all_gone(below)
    assert ran(folder.path)[0] == 0


def test_after_kill_9_the_results_are_the_same_byte_for_byte(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 60, bad=7)
    well, ill = (job(tmp_path / name, bundle_path, images) for name in ("well", "ill"))
    local.run(well, 1)
    with started(ill.path) as process:
        wait_for_a_part(process)
        below = descendants(process.pid)
        process.kill()
    assert below
    assert all_gone(below)
    assert ran(ill.path)[0] == 1
    assert results(ill) == results(well)


def test_it_ends_with_the_process_that_started_it(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 400))
    code = f"import subprocess; subprocess.run({[*COMMAND, str(folder.path), '--processes', '1']!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        wait_for_a_part(parent)
        below = descendants(parent.pid)
        parent.kill()
    assert len(below) == 2
    assert all_gone(below)
    assert JobFolder(folder.path).todo()


def test_in_the_background_it_takes_only_what_nobody_else_wants(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 100))
    with started(folder.path, "--background") as process:
        wait_for_a_part(process)
        found = {(os.getpriority(os.PRIO_PROCESS, pid), os.sched_getscheduler(pid)) for pid in descendants(process.pid)}
        process.terminate()
    assert found == {(19, os.SCHED_IDLE)}
