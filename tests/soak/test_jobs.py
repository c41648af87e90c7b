"""Batch jobs that are killed at random moments, and resumed until they are done: the files are those of one left alone.

`isolatent embed` on this machine and on Ray, and jobs of a service that is killed as a whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow.dataset
import pytest

from jobs_core_support import CORRUPT, pictures
from ray_support import NEEDS_RAY, QUIET, ray_actors, ray_cluster
from serve_support import all_gone, descendants
from soak_support import LONG, lasting, scaled, seeded, until

ROUNDS = scaled(2, 20)
ITEMS = scaled(600, 6000)
PATIENCE = 240.0

Kill = Callable[[subprocess.Popen[bytes]], bool]
"""Kills something of a job; returns whether the job goes on all the same."""


@dataclass(frozen=True)
class Moment:
    """A kill so many seconds after so many more parts are there."""

    parts: int
    seconds: float
    kill: Kill


def embed(inputs: Path, model: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """`isolatent embed`, in a session of its own."""
    command = [sys.executable, "-m", "isolatent", "embed", str(inputs), "--model", str(model), "--out", f"{out}/"]
    command += ["--device", "cpu", "--shard-items", "50", *options]
    with out.with_name(f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def made(out: Path) -> dict[str, bytes]:
    """Name -> content of what a job leaves: parts, errors and the listing."""
    kept = [*out.glob("part-*"), *out.glob("_errors/*"), out / "_errors.jsonl", out / "_listing.json"]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def kill_all(process: subprocess.Popen[bytes]) -> bool:
    """Kill -9 the command and every process below it."""
    for pid in [process.pid, *descendants(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    return False


def kill_one_worker(process: subprocess.Popen[bytes]) -> bool:
    """Kill -9 one of the processes that compute, if there are any yet."""
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(descendants(process.pid)[-1], signal.SIGKILL)
    return True


def kill_one_actor(_process: subprocess.Popen[bytes]) -> bool:
    """Kill -9 one of Ray's actors below this process, whose cluster it is."""
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(ray_actors()[-1], signal.SIGKILL)
    return True


def last_through(start: Callable[[], subprocess.Popen[bytes]], out: Path, kills: list[Moment]) -> tuple[int, list[str]]:
    """Start a job again and again, with a kill each time, then leave it alone: its exit code, and what was killed."""
    struck = []
    for moment in kills:
        process, parts = start(), len(list(out.glob("part-*"))) + moment.parts
        while len(list(out.glob("part-*"))) < parts and process.poll() is None:
            time.sleep(0.005)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(moment.seconds), struck  # it was quicker
        struck.append(f"{moment.kill.__name__} at {parts} parts + {moment.seconds:.2f} s")
        if moment.kill(process):
            return process.wait(PATIENCE), struck
    return start().wait(PATIENCE), struck


def moments(numbers: random.Random, first: Kill, ways: list[Kill]) -> list[Moment]:
    """One kill in the middle of the work, and up to two at any time: while it starts, lists, computes or writes."""
    kills = [Moment(numbers.randint(1, 5), numbers.uniform(0, 0.05), first)]
    for _ in range(numbers.randint(0, 2)):
        kills.append(Moment(numbers.randint(0, 4), numbers.uniform(0, 1), numbers.choice(ways)))
    return kills


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, some of them broken, for twelve shards."""
    return pictures(tmp_path_factory.mktemp("killed") / "inputs", ITEMS, bad=100)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path, inputs: Path) -> dict[str, bytes]:
    """What a job makes of them that is left alone."""
    out = tmp_path_factory.mktemp("killed") / "alone"
    assert embed(inputs, bundle_path, out).wait(PATIENCE) == 1  # some inputs are broken
    return made(out)


@pytest.mark.timeout(scaled(300, 3600))
def test_a_job_killed_at_random_moments_makes_the_files_of_one_left_alone(
    bundle_path: Path, inputs: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    numbers = seeded("jobs")
    ways: list[Kill] = [kill_all, kill_one_worker]
    for round_ in range(ROUNDS):
        out = tmp_path / str(round_)
        kills = moments(numbers, ways[round_ % 2], ways)
        code, struck = last_through(lambda out=out: embed(inputs, bundle_path, out), out, kills)
        print(f"round {round_}: {struck}")
        assert code == 1, out.with_name(f"{out.name}.log").read_text()  # some inputs are broken
        assert made(out) == expected


@QUIET
@NEEDS_RAY
@pytest.mark.skipif(not LONG, reason="slow: make soak; a killed actor and a killed node are in tests/serve/jobs")
@pytest.mark.timeout(3600)
def test_a_job_on_ray_whose_actors_or_driver_are_killed_makes_the_same_files(
    bundle_path: Path, inputs: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    numbers = seeded("ray")
    ways: list[Kill] = [kill_all, kill_one_actor]
    with ray_cluster() as cluster:

        def start(out: Path) -> subprocess.Popen[bytes]:
            process = embed(inputs, bundle_path, out, "--engine", "ray", "--address", cluster.address)
            until(lambda: bool(ray_actors()) or process.poll() is not None, "it has an actor", PATIENCE)
            return process

        for round_ in range(ROUNDS):
            out = tmp_path / str(round_)
            kills = moments(numbers, ways[round_ % 2], ways)
            code, struck = last_through(lambda out=out: start(out), out, kills)
            print(f"round {round_}: {struck}")
            assert code == 1, out.with_name(f"{out.name}.log").read_text()
            assert made(out) == expected
            assert all_gone(ray_actors(), 20)


@pytest.mark.timeout(scaled(300, 3600))
def test_a_service_killed_with_its_job_goes_on_with_it(
    bundle_path: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    numbers, count, struck = seeded("service"), 5000, 0
    images = pictures(tmp_path_factory.mktemp("served") / "images", count, bad=100)
    options = ["--jobs", str(tmp_path / "jobs"), "--jobs-input", str(images.parent), "--job-processes", "1"]
    expected: dict[str, bytes] = {}
    for round_ in range(1 + ROUNDS):
        kills, job = 0, ""
        while True:
            with lasting(tmp_path / "log", bundle_path, *options) as service:
                job = job or _begin_job(service.url, images)
                if round_ and kills < 2:
                    least = numbers.uniform(0.3 * kills, 0.3 * kills + 0.3) * count
                    until(lambda: _reached(service.url, job, least), "it is that far", PATIENCE)  # noqa: B023
                    time.sleep(numbers.uniform(0, 0.2))
                    struck += _job(service.url, job)["state"] == "running"
                    for pid in [service.pid, *descendants(service.pid)]:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    kills += 1
                    continue
                until(lambda: _job(service.url, job)["state"] not in ("queued", "running"), "the job is over", PATIENCE)  # noqa: B023
                found = _job(service.url, job)
                break
        assert found["state"] == "succeeded"
        assert found["counts"] == {"total": count, "succeeded": count - count // 100, "failed": count // 100}
        files = made(tmp_path / "jobs" / "jobs" / job)
        expected = expected or files
        print(f"round {round_}: {kills} kills, {struck} in all while the job was running")
        assert files == expected
    assert struck >= ROUNDS


def _begin_job(url: str, images: Path) -> str:
    answer = httpx2.post(f"{url}/v1/jobs", json={"input": {"path": str(images)}}, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _reached(url: str, job: str, least: float) -> bool:
    found = _job(url, job)
    return found["state"] not in ("queued", "running") or found["counts"]["succeeded"] >= least


def _job(url: str, job: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{url}/v1/jobs/{job}", timeout=30).json()
    return found


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


HUGE = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 65_536, 65_536, 8, 0, 0, 0, 0))
BROKEN = {
    "undecodable": [CORRUPT, b"hello", b"\x89PNG"],
    "empty_input": [b""],
    "too_many_pixels": [HUGE + png_chunk(b"IDAT", b"")],
}
"""Code -> files that are refused with it."""


@pytest.mark.timeout(scaled(300, 3600))
def test_exactly_the_corrupt_inputs_are_among_the_errors(bundle_path: Path, tmp_path: Path) -> None:
    numbers, count = seeded("corrupt"), scaled(1_000, 100_000)
    images = pictures(tmp_path / "images", count)
    cases = [(code, content) for code, contents in BROKEN.items() for content in contents]
    corrupt = {}
    for place in numbers.sample(range(count), count // 100):
        code, content = numbers.choice(cases)
        (images / f"{place:06d}.png").write_bytes(content)
        corrupt[f"{place:06d}.png"] = (place, code)
    assert embed(images, bundle_path, tmp_path / "out").wait(3000) == 1
    errors = [json.loads(line) for line in (tmp_path / "out" / "_errors.jsonl").read_text().splitlines()]
    assert {each["id"]: (each["index"], each["code"]) for each in errors} == corrupt
    assert all(each["detail"] for each in errors)
    assert [each["index"] for each in errors] == sorted(each["index"] for each in errors)
    counts = json.loads((tmp_path / "out" / "_listing.json").read_text())["counts"]
    assert counts == {"total": count, "succeeded": count - count // 100, "failed": count // 100}
    table = pyarrow.dataset.dataset(tmp_path / "out").to_table(["id", "kl"])
    names = [f"{place:06d}.png" for place in range(count)]
    assert table["id"].to_pylist() == [name for name in names if name not in corrupt]
    assert np.isfinite(table["kl"].to_numpy()).all()
