"""The real service as a command, and what /proc says about its processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

COMMAND = [sys.executable, "-m", "isolatent", "serve", "--port", "0", "--device", "cpu"]


@contextlib.contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`isolatent serve` with these arguments: its process, and the first line it prints."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *arguments], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        yield process, process.stdout.readline()
        process.kill()


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


def workers(pid: int) -> list[int]:
    """The parser workers of the service `pid`: its only child is the template, theirs."""
    return descendants(pid)[1:]


def cpu_ticks(pid: int) -> int:
    """User time of a process in hundredths of a second."""
    return int(_stats()[pid][11])


def all_gone(pids: list[int]) -> bool:
    """Whether these processes end within a few seconds."""
    for _ in range(100):
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
    memory = Memory(_memory(pid))

    def watch() -> None:
        while not memory.done.wait(0.01):
            now, at = _memory(pid), memory.at
            if now > memory.peak:
                memory.peak, memory.peak_at = now, at

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        memory.done.set()
        thread.join()


def _memory(pid: int) -> float:
    kilobytes = 0
    for process in [pid, *descendants(pid)]:
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            kilobytes += int(rollup.partition("\nPss:")[2].split()[0])
    return kilobytes / 1000
