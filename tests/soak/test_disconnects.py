"""Clients that leave at any moment, thousands of them: good requests in between are answered, and nothing is kept."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

from serve_support import workers
from soak_requests import NPY, Mixture, Samples, npy, send
from soak_support import Running, lasting, scaled, seeded, together, until

CLIENTS = 8
GOOD = 10
"""One of so many is a good request that waits for its answer."""
MEGABYTES = 60
FILES_OF_PARSERS = 2
"""A connection and a handle for each parser worker that is kept."""
_GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.timeout(scaled(300, 7200))
def test_random_disconnects_leave_nothing_behind(service: Running, samples: Samples, png: bytes) -> None:
    numbers = seeded("disconnects")
    count = scaled(300, 10_000)
    files = service.files + FILES_OF_PARSERS * len(os.sched_getaffinity(0))
    _leave_at_random(service, samples, numbers, count // 10)  # threads and parsers that stay are there from now on
    _require_settled(service, files)
    before = service.files, service.threads, service.memory
    ways = _leave_at_random(service, samples, numbers, count)
    _require_settled(service, files)
    after = service.files, service.threads, service.memory
    print(f"{sum(ways.values())} connections, {dict(ways)}; files, threads and MB: {before} before, {after} after")
    assert after[1] <= before[1]
    assert after[2] - before[2] < MEGABYTES
    service.require_alive(png)


def test_garbage_behind_waiting_requests_ends_the_one_that_is_answered(
    bundle_path: Path, tmp_path: Path, png: bytes
) -> None:
    slow = _post("/v1/consistency?model=tiny&samples=32", NPY, npy(np.zeros((300, 16, 16), np.uint8)))
    with lasting(tmp_path / "log", bundle_path) as service:
        for waiting in (0, 1, 5):
            with _connect(service.url) as connection:
                connection.sendall(slow + _GET * waiting + b"\0\r\n\r\n")
                assert connection.recv(1000)[:12] == (b"" if waiting else b"HTTP/1.1 400")
        until(lambda: service.queued == 0, "the queues to be empty")
        service.require_alive(png)
        service.end(20)
        statuses = [json.loads(line).get("status") for line in service.log.read_text().splitlines()]
    assert statuses.count(499) == 3


def _leave_at_random(service: Running, samples: Samples, numbers: random.Random, count: int) -> Counter[str]:
    seeds = [numbers.getrandbits(64) for _ in range(CLIENTS)]
    requests = _as_bytes(samples)

    def leave(place: int) -> Counter[str]:
        own, ways = random.Random(seeds[place]), Counter[str]()
        mixture = Mixture(samples, own)
        with httpx2.Client(base_url=service.url, timeout=60) as client:
            while ways.total() - ways["good"] < count // CLIENTS:
                if own.randrange(GOOD) == 0:
                    asked = mixture.next()
                    asked.check(send(client, asked))
                    ways["good"] += 1
                ways[_leave(service.url, own.choice(requests), own)] += 1
        return ways

    return sum(together(CLIENTS, leave), Counter[str]())


def _leave(url: str, request: bytes, numbers: random.Random) -> str:
    """Begin a request, and leave it at some moment; returns when."""
    head = request.index(b"\r\n\r\n") + 4
    way = numbers.choice(["at once", "in the head", "in the body", "after the body", "in the answer", "in the second"])
    cut = {
        "at once": 0,
        "in the head": numbers.randrange(1, head),
        "in the body": numbers.randint(head, len(request)),
        "in the second": numbers.randrange(1, len(request)),
    }
    with _connect(url) as connection:
        if way in ("after the body", "in the answer"):
            connection.sendall(request)
        elif way == "in the second":
            connection.sendall(request + request[: cut[way]])
        else:
            connection.sendall(request[: cut[way]])
        if way in ("in the answer", "in the second"):
            with contextlib.suppress(ConnectionResetError):
                connection.recv(numbers.choice([1, 20, 1000]))
        if numbers.random() < 0.5:  # by a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return way


def _connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname or "", where.port or 0), timeout=20)


def _as_bytes(samples: Samples) -> list[bytes]:
    """Requests for small and large work: read in the service and by parsers, with short and long answers."""
    small = npy(np.zeros((3, 16, 16), np.uint8))
    large = npy(np.zeros((300, 16, 16), np.uint8))
    return [
        _GET,
        *(_post("/v1/posteriors?model=tiny", "image/png", file) for file in samples.pictures[::4]),
        *(_post("/v1/embeddings?model=tiny-cloud", "text/plain", file) for file in samples.clouds[::2]),
        _post("/v1/reconstructions?model=tiny", NPY, large),
        _post("/v1/consistency?model=tiny&samples=8", NPY, small),
        _chunked("/v1/posteriors?model=tiny", NPY, large),
        _post("/v1/posteriors?model=tiny-cloud", "text/plain", samples.hostile[1]),
    ]


def _post(target: str, kind: str, body: bytes) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunked(target: str, kind: str, body: bytes) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [body[start : start + 5000] for start in range(0, len(body), 5000)]
    return head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def _require_settled(service: Running, files: int) -> None:
    """Wait until the queues are empty and what was open is closed: connections, and the handles of parsers."""
    until(lambda: service.queued == 0, "the queues to be empty")
    cores = len(os.sched_getaffinity(0))
    until(lambda: len(workers(service.pid)) <= cores, "no more parsers than cores")
    until(lambda: service.files <= files, f"no more than {files} files to be open")
