"""Closed-loop load by wrk: so many connections, each with one request at a time. https://github.com/wg/wrk"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_suffix(".lua")


@dataclass(frozen=True)
class Measured:
    """What wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    not_2xx: int
    broken: int
    """Connections refused, and reads and writes that failed."""
    timeouts: int

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return (self.requests - self.not_2xx) / self.seconds

    @property
    def errors(self) -> int:
        """Everything but good answers."""
        return self.not_2xx + self.broken + self.timeouts


def require() -> None:
    """Stop where wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; run: apt-get install wrk")


def store(bodies: Sequence[bytes], folder: Path) -> Path:
    """Write the bodies where the script finds them."""
    folder.mkdir(parents=True)
    for number, body in enumerate(bodies):
        (folder / str(number)).write_bytes(body)
    return folder


def measure(
    url: str, bodies: Path, content_type: str, accept: str, *, connections: int, seconds: float, on: Iterable[int]
) -> Measured:
    """Post the bodies in turn for so long, from the cores `on`."""
    allowed = set(on)
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--timeout", "30s"]
    command += ["--duration", f"{max(1, round(seconds))}s", "--script", str(SCRIPT), url]
    command += ["--", str(bodies), content_type, accept]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    if done.returncode != 0:  # nobody listens any more
        return Measured(0, seconds, 0.0, 0.0, 0, connections, 0)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))
