"""What the long tests share: how long they are, the service that they last against, and what every answer must be.

`make test` runs them shortened, `make soak` in full. ISOLATENT_SEED, which each prints, chooses the random numbers.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2

from isolatent_serve import schemas
from isolatent_serve.problems import MEDIA_TYPE, PROBLEMS, PROTOCOL_PATHS
from isolatent_serve.protocol.schemas import ProtocolError
from serve_support import COMMAND, all_gone, descendants, megabytes, wait_until_ready

LONG = os.environ.get("ISOLATENT_SOAK") == "1"
SEED = int(os.environ.get("ISOLATENT_SEED", "1"))

MODELS = ("tiny", "tiny-colour", "tiny-cloud")
ACCEPTABLE_5XX = (503, 504)

T = TypeVar("T")


def scaled(short: int, full: int) -> int:
    """How much there is of something: `short` in `make test`, `full` in `make soak`."""
    return full if LONG else short


def seeded(name: str) -> random.Random:
    """Random numbers for a test, the same ones in each run; the seed is shown when it fails."""
    print(f"\n{name}: ISOLATENT_SEED={SEED} ISOLATENT_SOAK={int(LONG)}")
    return random.Random(f"{SEED} {name}")


def together(count: int, function: Callable[[int], T]) -> list[T]:
    """What `function` returns for 0 to `count` - 1, called in a thread each. Raises what the first of them raises."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, range(count)))


@dataclass
class Running:
    """A service that is ready: where it listens, its process, and the file with its log."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    @property
    def files(self) -> int:
        """Open files of the process, connections among them."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @property
    def memory(self) -> float:
        """Of all its processes, in MB."""
        return megabytes(self.pid)

    @property
    def queued(self) -> float:
        """Inputs in the queues of all its models."""
        lines = httpx2.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("isolatent_queue_items{"))

    def require_alive(self, png: bytes) -> None:
        """Check that it is ready and answers a request at once."""
        assert self.process.poll() is None, "the service has ended"
        assert httpx2.get(f"{self.url}/readyz", timeout=30).status_code == 200
        answer = httpx2.post(f"{self.url}/v1/posteriors?model=tiny", files={"input": png}, timeout=30)
        assert answer.status_code == 200, answer.text

    def end(self, seconds: float, *, quiet: bool = True) -> None:
        """SIGTERM; check that all of it ends in time, and if `quiet` that no error is in its log."""
        below, began = descendants(self.pid), time.monotonic()
        self.process.terminate()
        assert self.process.wait(seconds) == 0
        assert all_gone(below), "processes are left"
        print(f"ended in {time.monotonic() - began:.1f} s")
        with self.log.open() as lines:
            errors = [line for line in lines if json.loads(line)["level"] not in ("debug", "info", "warning")]
        assert not quiet or errors == [], errors[:5]


@contextlib.contextmanager
def lasting(log: Path, *arguments: str | Path, threads: int = 1, ready: bool = True) -> Iterator[Running]:
    """`isolatent serve` with these arguments; killed at the end if it still runs."""
    command = [*COMMAND, *arguments, "--threads", str(threads), "--log-format", "json"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout
            running = Running(process.stdout.readline().split()[-1], process, log)
            if ready:
                wait_until_ready(running.url)
            yield running
        finally:
            process.kill()


def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def require_documented(status: int, headers: Mapping[str, str], body: bytes, path: str = "") -> str:
    """Check that an answer is a success or a problem as in docs/http-api.md; returns the problem's code, if any.

    Without `path`, errors may be those of /v1 or of /v2.
    """
    assert status < 500 or status in ACCEPTABLE_5XX, (status, body[:500])
    assert headers.get("X-Request-Id"), (status, dict(headers))
    if status < 400:
        assert status == 200, (status, body[:500])
        return ""
    assert status not in (429, 503) or int(headers.get("Retry-After", "0")) >= 1, (status, dict(headers))
    if PROTOCOL_PATHS.match(path) or (not path and headers["Content-Type"] == "application/json"):
        assert headers["Content-Type"] == "application/json", headers["Content-Type"]
        return ProtocolError.model_validate_json(body).error
    assert headers["Content-Type"] == MEDIA_TYPE, (status, headers["Content-Type"], body[:200])
    problem = schemas.ProblemDetails.model_validate_json(body)
    assert PROBLEMS[problem.code][0] == problem.status == status, body[:500]
    assert problem.request_id == headers["X-Request-Id"]
    return problem.code
