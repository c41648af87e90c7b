"""A server as a process tree: started on chosen cores, frozen while others are measured, stopped with its children."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil


def cores(count: int) -> tuple[set[int], set[int]]:
    """(the cores of servers, those of load generators): the first `count`, and the rest where there is a rest."""
    usable = sorted(os.sched_getaffinity(0))
    return set(usable[:count]), set(usable[count:] or usable)


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Process:
    """A command and every process below it."""

    def __init__(
        self, command: Sequence[str | Path], env: dict[str, str], folder: Path, log: Path, on: Iterable[int]
    ) -> None:
        """Start it in `folder` on the cores `on`, its output going to `log`."""
        allowed = set(on)
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=os.environ | env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: os.sched_setaffinity(0, allowed),
            )
        self._root = psutil.Process(self._popen.pid)
        self.log = log

    @property
    def alive(self) -> bool:
        """Whether the command has not ended."""
        return self._popen.poll() is None

    def memory(self) -> float:
        """MB of the whole tree; what processes share is counted once."""
        total = 0
        for each in self._tree():
            with suppress(psutil.Error):
                total += each.memory_full_info().pss
        return total / 1e6

    def rest(self, patience: float = 10.0) -> None:
        """Wait until it has done what it was left with: it uses a tenth of a core or less, or patience is over."""
        end, before = time.monotonic() + patience, self._busy()
        while time.monotonic() < end:
            time.sleep(0.2)
            now = self._busy()
            if now - before <= 0.02:
                return
            before = now

    def freeze(self) -> None:
        """Let it use no processor until `thaw`: parents first, so that none of them sees a child stop."""
        for each in self._tree():
            with suppress(psutil.Error):
                each.suspend()

    def thaw(self) -> None:
        """Let it go on: children first."""
        for each in reversed(self._tree()):
            with suppress(psutil.Error):
                each.resume()

    def stop(self, patience: float = 5.0) -> None:
        """Ask it to end, and end what has not ended after `patience` seconds."""
        tree = self._tree()
        self._popen.terminate()
        _, left = psutil.wait_procs(tree[1:], timeout=patience)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(1.0 if left else patience)
        for each in [*left, *self._tree()]:
            with suppress(psutil.Error):
                each.kill()
        self._popen.wait()

    def _busy(self) -> float:
        """Seconds of processor time so far."""
        total = 0.0
        for each in self._tree():
            with suppress(psutil.Error):
                times = each.cpu_times()
                total += times.user + times.system
        return total

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []
