"""A real TorchServe, started by the start.sh that users get, and stopped the way they stop it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest

from isolatent_export import Bundle
from isolatent_export.torchserve.store import START, Serving, write_store

PROGRAMS = Path(sys.executable).parent


@dataclass(frozen=True)
class TorchServer:
    """A TorchServe that runs: its inference and management addresses, the process of start.sh, its folder."""

    url: str
    management: str
    pid: int
    folder: Path

    def post(self, path: str, content: bytes, **headers: str) -> httpx2.Response:
        """POST to the inference address; `content_type` becomes Content-Type."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.post(self.url + path, content=content, headers=named, timeout=60)

    def describe(self, model: str) -> dict[str, Any]:
        """What the management API says about a model: its workers, its queue."""
        facts: dict[str, Any] = httpx2.get(f"{self.management}/models/{model}", timeout=60).json()[0]
        return facts

    def worker(self, model: str) -> int:
        """The process id of the model's worker, once it is ready."""
        wait_until(lambda: self.describe(model)["workers"][0]["status"] == "READY")
        pid: int = self.describe(model)["workers"][0]["pid"]
        return pid

    def arrived(self, model: str) -> int:
        """How many requests for the model have arrived since the start."""
        lines = httpx2.get(self.management.replace(*self._ports()) + "/metrics", timeout=60).text.splitlines()
        counts = [line for line in lines if line.startswith("ts_inference_requests_total{") and f'"{model}"' in line]
        return sum(int(float(line.split()[-1])) for line in counts)

    def queued(self, model: str) -> int:
        """How many requests wait for the model's worker."""
        count: int = self.describe(model)["jobQueueStatus"]["pendingRequests"]
        return count

    def _ports(self) -> tuple[str, str]:
        port = self.management.rpartition(":")[2]
        return port, str(int(port) + 1)


@contextlib.contextmanager
def torchserve(folder: Path, *bundles: Path) -> Iterator[TorchServer]:
    """TorchServe with these bundles, ready; skips where it is not installed. It has stopped cleanly afterwards."""
    require()
    import psutil  # TorchServe brings it

    port = _free_ports(5)
    write_store([Bundle.open(path) for path in bundles], folder, Serving(port=port))
    # In a file: nobody reads a pipe while the tests run.
    with (folder / "output").open("w") as output:
        process = subprocess.Popen([folder / START], env=environment(), stdout=output, stderr=subprocess.STDOUT)
        try:
            server = TorchServer(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", process.pid, folder)
            for path in bundles:
                wait_until(lambda name=path.name: _answers(server, name), process, folder)  # type: ignore[misc]
            yield server
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            code = process.wait(60)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert (code, alive) == (0, [])


def environment(**changes: str) -> Mapping[str, str]:
    """The environment in which `torchserve` and `isolatent` are found."""
    return os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"} | changes


def require() -> None:
    """Skip the test, with the reason, where TorchServe cannot run."""
    if not shutil.which("java"):
        pytest.skip("TorchServe needs Java: apt-get install openjdk-17-jre-headless")
    if not find_spec("ts"):
        pytest.skip('TorchServe is not installed: pip install "isolatent[torchserve]"')


def wait_until(
    true: Callable[[], bool], process: subprocess.Popen[bytes] | None = None, folder: Path | None = None
) -> None:
    """Until `true()`, at most two minutes and as long as `process` lives."""
    deadline = time.monotonic() + 120
    while not true():
        if time.monotonic() > deadline or (process and process.poll() is not None):
            log = (folder / "output").read_text()[-5000:] if folder else ""
            raise AssertionError(f"it did not come to pass\n{log}")
        time.sleep(0.1)


@contextlib.contextmanager
def in_background(action: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run `action` in a thread; what it returned or raised is in the list when the block has ended."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(action())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join()


def _answers(server: TorchServer, model: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return server.post(f"/predictions/{model}", b'{"output": "model"}', content_type="application/json").is_success
    return False


def _free_ports(count: int) -> int:
    """The first of `count` ports in a row on which nothing listens."""
    for _ in range(100):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            for other in range(1, count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port + other))
            return port
    raise AssertionError("no free ports")
