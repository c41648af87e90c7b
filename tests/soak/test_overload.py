"""Ten times the load that the service can bear: what is accepted is answered, the rest refused."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest

from serve_support import measured_memory
from soak_requests import NPY, npy
from soak_support import LONG, lasting, require_documented, scaled, seeded, until

ITEMS = 128
QUEUE = 512
TARGET = "/v1/consistency?model=tiny&samples=32"  # much work for few bytes: the clients must not be what is slow
SENDERS = 96
FACTOR = 10
MEGABYTES = 150


@pytest.mark.timeout(scaled(300, 3600))
def test_ten_times_the_capacity_is_answered_or_refused(bundle_path: Path, png: bytes, tmp_path: Path) -> None:
    seeded("overload")
    with lasting(tmp_path / "log", bundle_path, "--max-queue", str(QUEUE)) as service:
        capacity = _capacity(service.url)
        with measured_memory(service.pid) as memory:
            latencies = _offer(service.url, FACTOR * capacity, scaled(3, 60))
        ended = time.monotonic()
        counts = {code: len(seconds) for code, seconds in latencies.items()}
        tails = {code: f"{1000 * np.quantile(seconds, 0.99):.0f} ms" for code, seconds in latencies.items()}
        print(f"capacity {capacity:.1f}/s, offered {sum(counts.values())}: {counts}, p99 {tails}", end=" ")
        print(f"memory grew by {memory.growth:.0f} MB")
        assert counts.keys() <= {"200", "queue_full", "deadline", "too_many_connections"}
        assert counts["200"] > 0
        assert counts["queue_full"] > 0
        assert memory.growth < MEGABYTES
        until(lambda: _is_quick(service.url, png), "quick again", 5 if LONG else 60)
        print(f"well again after {time.monotonic() - ended:.1f} s")
        service.require_alive(png)
        service.end(30)


def _capacity(url: str) -> float:
    """Requests per second that the service answers when it always has two."""
    body, seconds = _body(), scaled(1, 5)

    def ask(_: int) -> int:
        done, end = 0, time.monotonic() + seconds
        with httpx2.Client(base_url=url, timeout=60) as client:
            while time.monotonic() < end:
                assert client.post(TARGET, content=body, headers={"Content-Type": NPY}).status_code == 200
                done += 1
        return done

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(ask, range(2))) / seconds


def _offer(url: str, rate: float, seconds: float) -> dict[str, list[float]]:
    """Requests at a steady pace, whatever becomes of those before: outcome -> seconds from when each was due."""
    body, latencies = _body(), defaultdict[str, list[float]](list)
    with httpx2.Client(base_url=url, timeout=90, limits=httpx2.Limits(max_connections=SENDERS)) as client:

        def ask(due: float) -> tuple[str, float]:
            answer = client.post(TARGET, content=body, headers={"Content-Type": NPY})
            code = require_documented(answer.status_code, answer.headers, answer.content, TARGET)
            return code or "200", time.monotonic() - due

        with ThreadPoolExecutor(SENDERS) as pool:
            for outcome, latency in [
                each.result() for each in [pool.submit(ask, due) for due in _paced(rate, seconds)]
            ]:
                latencies[outcome].append(latency)
    return latencies


def _paced(rate: float, seconds: float) -> Iterator[float]:
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        time.sleep(max(0, due - time.monotonic()))
        yield due


def _is_quick(url: str, png: bytes) -> bool:
    began = time.monotonic()
    answer = httpx2.post(f"{url}/v1/posteriors", files={"input": png}, timeout=60)
    return answer.status_code == 200 and time.monotonic() - began < 0.5


def _body() -> bytes:
    return npy(np.random.default_rng(1).integers(0, 256, (ITEMS, 16, 16), np.uint8))
