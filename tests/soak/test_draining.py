"""SIGTERM at random moments under load of all kinds: every request is answered or refused, and nothing is left."""

from __future__ import annotations

import contextlib
import http.client
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from soak_requests import NPY, Samples, npy
from soak_support import lasting, require_documented, scaled, seeded

CLIENTS = 10
DRAIN_SECONDS = 15


@pytest.mark.timeout(scaled(300, 3600))
def test_no_request_is_lost_whenever_the_service_ends(
    bundle_path: Path, turning_path: Path, samples: Samples, tmp_path: Path
) -> None:
    numbers = seeded("draining")
    for round_ in range(scaled(2, 20)):
        workers = str(1 + round_ % 2)
        options = ["--workers", workers, "--drain", str(DRAIN_SECONDS), "--max-queue", "2000"]
        with (
            lasting(tmp_path / f"log{round_}", bundle_path, turning_path, *options) as service,
            ThreadPoolExecutor(CLIENTS) as pool,
        ):
            seeds = [numbers.getrandbits(64) for _ in range(CLIENTS)]
            clients = [pool.submit(_ask_until_refused, service.url, samples, seed) for seed in seeds]
            moment = numbers.uniform(0.1, 2)
            time.sleep(moment)
            service.end(DRAIN_SECONDS)
            outcomes = sum((client.result() for client in clients), Counter[str]())
        print(f"{workers} processes, after {moment:.2f} s: {dict(outcomes)}")
        assert outcomes.keys() <= {"200", "draining"}
        assert outcomes["200"] > 0


def _ask_until_refused(url: str, samples: Samples, seed: int) -> Counter[str]:
    """What a client gets until nobody listens any more; whatever is no whole answer raises."""
    where, numbers, outcomes = urlsplit(url), random.Random(seed), Counter[str]()
    with contextlib.closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)) as connection:
        while True:
            if connection.sock is None:
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return outcomes
            ask = numbers.choice([_picture, _cloud, _bulk, _slowly])
            answer = ask(connection, samples, numbers)
            code = require_documented(answer.status, answer.headers, answer.read())
            outcomes[code or "200"] += 1
            if numbers.random() < 0.3:
                connection.close()


def _post(connection: http.client.HTTPConnection, path: str, body: bytes, kind: str) -> http.client.HTTPResponse:
    connection.request("POST", path, body, {"Content-Type": kind})
    return connection.getresponse()


def _picture(
    connection: http.client.HTTPConnection, samples: Samples, numbers: random.Random
) -> http.client.HTTPResponse:
    return _post(connection, "/v1/posteriors?model=tiny", numbers.choice(samples.pictures), "image/png")


def _cloud(
    connection: http.client.HTTPConnection, samples: Samples, numbers: random.Random
) -> http.client.HTTPResponse:
    return _post(connection, "/v1/embeddings?model=tiny-cloud", numbers.choice(samples.clouds), "text/plain")


def _bulk(connection: http.client.HTTPConnection, _: Samples, numbers: random.Random) -> http.client.HTTPResponse:
    body = npy(np.zeros((numbers.choice([2, 64, 200]), 16, 16), np.uint8))
    return _post(connection, "/v1/reconstructions?model=tiny", body, NPY)


def _slowly(
    connection: http.client.HTTPConnection, samples: Samples, numbers: random.Random
) -> http.client.HTTPResponse:
    """A body in two parts, between which the service may begin to drain."""
    body = numbers.choice(samples.pictures)
    connection.putrequest("POST", "/v1/posteriors?model=tiny")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:20])
    time.sleep(numbers.uniform(0, 0.5))
    connection.send(body[20:])
    return connection.getresponse()
