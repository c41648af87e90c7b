"""The real command with several processes: shared work, deaths and replacements, reloading, and the end of all."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from isolatent_export.bundle import file_digest
from isolatent_serve.peers import Peers, State
from isolatent_serve.settings import Settings
from isolatent_serve.supervisor import Supervisor, Watch
from serve_support import COMMAND, all_gone, children, descendants, half_sent, serving, wait_until_ready

PNG = {"Content-Type": "image/png"}


@dataclass
class Fleet:
    """A service of two processes."""

    url: str
    supervisor: int

    @property
    def workers(self) -> list[int]:
        return children(self.supervisor)


@pytest.fixture(scope="module")
def fleet(bundle_path: Path) -> Iterator[Fleet]:
    """`isolatent serve --workers 2`, ready."""
    with serving(bundle_path, "--workers", "2", "--threads", "1", "--json") as (process, line):
        url = json.loads(line)["url"]
        wait_until_ready(url)
        yield Fleet(url, process.pid)
        process.terminate()
        assert process.wait(60) == 0
        assert process.stdout
        assert process.stdout.read() == ""  # one line, printed by one process


def wait_until_two(fleet: Fleet) -> None:
    wait_until_ready(fleet.url)
    assert len(fleet.workers) == 2


def sockets(pid: int) -> int:
    """How many sockets a process has open."""
    return sum(str(file.readlink()).startswith("socket:") for file in Path(f"/proc/{pid}/fd").iterdir())


def test_connections_go_to_both_processes(fleet: Fleet) -> None:
    before = [sockets(pid) for pid in fleet.workers]
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            client = stack.enter_context(httpx2.Client(base_url=fleet.url))
            assert client.get("/healthz").status_code == 200
        after = [sockets(pid) for pid in fleet.workers]
    gained = [now - then for now, then in zip(after, before, strict=True)]
    assert sum(gained) == 16
    assert min(gained) > 0


def test_a_process_that_is_killed_is_replaced_and_the_other_goes_on(fleet: Fleet, png: bytes) -> None:
    killed, other = fleet.workers
    below = descendants(killed)
    os.kill(killed, signal.SIGKILL)
    assert all_gone([killed, *below])
    assert httpx2.get(f"{fleet.url}/readyz").status_code == 503  # until there are two again
    answers = [httpx2.post(f"{fleet.url}/v1/posteriors", content=png, headers=PNG) for _ in range(20)]
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    wait_until_two(fleet)
    assert killed not in fleet.workers
    assert other in fleet.workers


def test_a_process_that_is_told_to_end_finishes_and_is_replaced(fleet: Fleet) -> None:
    told = fleet.workers[0]
    os.kill(told, signal.SIGTERM)
    assert all_gone([told], seconds=30)
    wait_until_two(fleet)
    assert httpx2.get(f"{fleet.url}/healthz").status_code == 200


def test_a_signal_to_all_of_them_drains_once(bundle_path: Path, png: bytes) -> None:
    """As a terminal or systemd sends it: to each process, and the supervisor tells each again."""
    with serving(bundle_path, "--workers", "2", "--threads", "1") as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        with half_sent(url, png) as connection:
            for pid in [process.pid, *children(process.pid)]:
                os.kill(pid, signal.SIGINT)
            wait_for_503(f"{url}/readyz")
            connection.sendall(png[50:])
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
        assert process.wait(60) == 0


def wait_for_503(url: str) -> None:
    while httpx2.get(url).status_code != 503:
        time.sleep(0.01)


def test_nothing_is_left_when_the_supervisor_is_killed(bundle_path: Path) -> None:
    with serving(bundle_path, "--workers", "2", "--threads", "1") as (process, line):
        wait_until_ready(line.split()[-1])
        below = descendants(process.pid)
        assert len(below) >= 4  # two that serve, and what reads files for them
        process.kill()
        assert all_gone(below)


def test_a_hangup_reaches_all(bundle_path: Path, colour_bundle_path: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_path, tmp_path / "tiny" / "1")
    options = ("--models", tmp_path, "--poll-seconds", "0", "--workers", "2", "--threads", "1")
    with serving(*options) as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        shutil.copytree(colour_bundle_path, tmp_path / "tiny-colour" / "1")
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while not all(count_models(url) == 2 for _ in range(8)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == 0


def count_models(url: str) -> int:
    """What one process says, over a connection of its own."""
    return len(httpx2.get(f"{url}/v1/models").json()["data"])


def test_a_model_that_must_not_be_served_ends_all(bundle_path: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "broken"))
    golden = load_file(bundle / "golden.safetensors")
    golden["mean"] = golden["mean"] + np.float32(0.5)
    save_file(golden, bundle / "golden.safetensors")
    manifest = json.loads((bundle / "manifest.json").read_text())
    facts = {
        "sha256": file_digest(bundle / "golden.safetensors"),
        "bytes": (bundle / "golden.safetensors").stat().st_size,
    }
    manifest["files"]["golden.safetensors"] = facts
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with serving(bundle, "--workers", "2", "--threads", "1") as (process, _):
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 1
        assert errors.splitlines()[-1].startswith("isolatent: error: ")
        assert "mean differs by 0.5" in errors.splitlines()[-1]


def test_processes_that_cannot_even_start_end_the_command(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif '-P' in sys.orig_argv: os._exit(3)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with serving(bundle_path, "--workers", "2", env=environment) as (process, _):
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "again and again" in errors.splitlines()[-1]
    assert errors.count("ended with 3") >= 5


def test_numbers_of_processes_that_cannot_be_are_usage_errors(bundle_path: Path) -> None:
    for number in ("0", "-1", "many"):
        command = [*COMMAND, bundle_path, "--workers", number]
        assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 2


def test_processes_know_of_each_other() -> None:
    first = Peers(2)
    second = first.at(1)
    assert not first.all(State.READY)
    first.state, second.state = State.READY, State.READY
    first.connections, second.connections = 5, 3
    assert first.all(State.READY)
    assert (first.fewest, second.fewest) == (3, 3)
    second.state = State.GONE
    assert first.fewest == 5  # who is not ready takes no connections
    assert not second.draining
    first.draining = True
    assert second.draining


def test_who_is_not_ready_leaves_connections_to_those_who_are() -> None:
    first = Peers(2)
    second = first.at(1)
    first.state, second.state = State.UNREADY, State.UNREADY
    assert not first.leaves_to_others(60)  # somebody has to say that nothing is ready
    second.state = State.READY
    assert first.leaves_to_others(60)
    assert not first.leaves_to_others(0)  # the other one hangs
    assert not second.leaves_to_others(60)


def test_a_watch_that_stood_still_begins_again() -> None:
    watch = Watch(100.0)
    assert [watch.awake(now) for now in (101.0, 105.9, 140.0, 141.0)] == [1.0, pytest.approx(5.9), 0.0, 1.0]


def test_a_process_that_cannot_be_started_leaves_the_others_alone(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        supervisor = Supervisor(Settings(bundles=(bundle_path,), workers=2), listener)
        supervisor._metrics = ""
        state, words = asyncio.run(supervisor._run_member(0))
    assert (state, "Resource temporarily unavailable; raise the limit" in words) == (State.UNREADY, True)
    assert supervisor._is_hopeless(1, words)  # at the start
    supervisor._peers.at(1).state = State.READY
    assert not supervisor._is_hopeless(100, words)
