"""The real service as a command, and what /proc says about its processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from isolatent_serve import Settings, listening
from isolatent_serve.server import Server, open_bundles

COMMAND = [sys.executable, "-m", "isolatent", "serve", "--port", "0", "--device", "cpu"]


@contextlib.contextmanager
def serving(*arguments: str | Path, env: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`isolatent serve` with these arguments: its process, and the first line it prints."""
    command, pipe, room = [*COMMAND, *arguments], subprocess.PIPE, 2**20  # for the log: a pipe that is full halts it
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, pipesize=room) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


@contextlib.contextmanager
def running(settings: Settings, *paths: Path) -> Iterator[str]:
    """The service over these bundles, in a thread and on a free port: its address, once it is ready."""
    server = Server(settings, open_bundles(paths))
    with listening.bind(settings.model_copy(update={"port": 0})) as listener:
        url = "http://{}:{}".format(*listener.getsockname())
        thread = threading.Thread(target=server.serve_on, args=(listener,))
        thread.start()
        try:
            wait_until_ready(url)
            yield url
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def half_sent(url: str, body: bytes) -> Iterator[socket.socket]:
    """A connection over which the service has got a request with the first 50 bytes of its body."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        head = f"POST /v1/posteriors HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(body[:50])
        yield connection


def wait_until_ready(url: str) -> None:
    for _ in range(600):
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"{url} did not become ready")


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, nearest first."""
    parents = {process: facts[1] for process, facts in _stats().items()}
    found = [pid]
    for parent in found:
        found += [process for process, its in parents.items() if int(its) == parent]
    return found[1:]


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    return [process for process, facts in _stats().items() if int(facts[1]) == pid and facts[0] != "Z"]


def workers(pid: int) -> list[int]:
    """The parser workers of the service `pid`: its only child is the template, theirs."""
    return descendants(pid)[1:]


def cpu_ticks(pid: int) -> int:
    """User time of a process in hundredths of a second."""
    return int(_stats()[pid][11])


def all_gone(pids: list[int], seconds: float = 5) -> bool:
    """Whether these processes end within a few seconds."""
    for _ in range(int(20 * seconds)):
        stats = _stats()
        if not any(pid in stats and stats[pid][0] != "Z" for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _stats() -> dict[int, list[str]]:
    """Per process the fields of /proc/PID/stat that follow the name: state, parent, ..."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
    return found


@dataclass
class Memory:
    """Memory of a process and all below it, in MB; pages that several share are counted once."""

    before: float
    peak: float = 0.0
    at: str = ""
    """What was going on; set it, and `peak_at` keeps it."""
    peak_at: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def growth(self) -> float:
        return self.peak - self.before


@contextlib.contextmanager
def measured_memory(pid: int) -> Iterator[Memory]:
    """Watch the memory of the processes of the service `pid`."""
    memory = Memory(megabytes(pid))

    def watch() -> None:
        while not memory.done.wait(0.01):
            now, at = megabytes(pid), memory.at
            if now > memory.peak:
                memory.peak, memory.peak_at = now, at

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        memory.done.set()
        thread.join()


def megabytes(pid: int) -> float:
    """Memory of the process `pid` and all below it; pages that several share are counted once."""
    kilobytes = 0
    for process in [pid, *descendants(pid)]:
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            kilobytes += int(rollup.partition("\nPss:")[2].split()[0])
    return kilobytes / 1000
