"""Processes that are killed under load: who was in their hands knows at once, nobody else notices, and others come."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from serve_support import all_gone, children, descendants, wait_until_ready
from soak_requests import Samples
from soak_support import Running, lasting, require_documented, scaled, seeded

CLIENTS = 8
OK = "200"


@dataclass
class Load:
    """Clients that ask one after the other, each over a connection of its own, until they are told to stop."""

    url: str
    target: str
    files: list[bytes]
    stopping: threading.Event = field(default_factory=threading.Event)
    clients: list[Future[Counter[str]]] = field(default_factory=list)

    @property
    def outcomes(self) -> list[Counter[str]]:
        """What each client got, by code; after the end."""
        return [client.result() for client in self.clients]

    def ask(self, seed: int) -> Counter[str]:
        where, numbers, outcomes = urlsplit(self.url), random.Random(seed), Counter[str]()
        with contextlib.closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)) as connection:
            while not self.stopping.is_set():
                try:
                    connection.request("POST", self.target, numbers.choice(self.files), {"Content-Type": "text/plain"})
                    answer = connection.getresponse()
                    code = require_documented(answer.status, answer.headers, answer.read(), self.target)
                    outcomes[code or OK] += 1
                except (ConnectionError, http.client.IncompleteRead):
                    connection.close()
                    outcomes["lost"] += 1
        return outcomes


@contextlib.contextmanager
def loaded(url: str, target: str, files: list[bytes]) -> Iterator[Load]:
    """The service under load as long as the block lasts."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        load = Load(url, target, files)
        load.clients = [pool.submit(load.ask, seed) for seed in range(CLIENTS)]
        try:
            yield load
        finally:
            load.stopping.set()


@pytest.mark.timeout(scaled(300, 3600))
def test_a_process_killed_under_load_costs_its_own_requests_only(
    bundle_path: Path, samples: Samples, png: bytes, tmp_path: Path
) -> None:
    numbers, kills = seeded("kills"), scaled(1, 20)
    with lasting(tmp_path / "log", bundle_path, "--workers", "2") as service:
        with loaded(service.url, "/v1/posteriors", samples.pictures[:9]) as load:
            for _ in range(kills):
                time.sleep(numbers.uniform(0.2, 1.5))
                _kill_one(service, numbers)
            time.sleep(0.5)
        print(f"{kills} kills: {[dict(outcomes) for outcomes in load.outcomes]}")
        for outcomes in load.outcomes:
            assert outcomes.keys() <= {OK, "lost"}
            assert outcomes["lost"] <= kills  # whatever was in its hands, over one connection
            assert outcomes[OK] > 10
        assert sum(outcomes["lost"] for outcomes in load.outcomes) > 0
        service.require_alive(png)
        service.end(20, quiet=False)  # it says who was killed


def _kill_one(service: Running, numbers: random.Random) -> None:
    """Kill a process that serves, and wait until there is another in its place."""
    before = children(service.pid)
    killed = numbers.choice(before)
    below, began = descendants(killed), time.monotonic()
    os.kill(killed, signal.SIGKILL)
    assert all_gone([killed, *below])
    while len(children(service.pid)) < 2:
        assert time.monotonic() < began + 60, "not replaced"  # who dies again and again waits for half a minute
        time.sleep(0.05)
    wait_until_ready(service.url)
    print(f"replaced in {time.monotonic() - began:.1f} s")
    assert killed not in children(service.pid)


@pytest.mark.timeout(scaled(300, 3600))
def test_readers_killed_under_load_cost_a_file_each(turning_path: Path, samples: Samples, tmp_path: Path) -> None:
    numbers, kills = seeded("readers"), scaled(6, 200)
    killed = Counter[str]()
    with lasting(tmp_path / "log", turning_path) as service:
        with loaded(service.url, "/v1/posteriors", samples.clouds) as load:
            for number in range(kills):
                time.sleep(numbers.uniform(0.05, 0.3))
                template, *readers = _readers(service)
                victim = template if number % 3 == 0 else numbers.choice(readers)
                killed["readers"] += len(readers) if victim == template else 1  # those of a template end with it
                killed["templates"] += victim == template
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
        outcomes = sum(load.outcomes, Counter[str]())
        print(f"{dict(killed)} killed: {dict(outcomes)}")
        assert outcomes.keys() <= {OK, "parser_crashed", "not_ready"}
        assert outcomes["parser_crashed"] <= killed["readers"]
        assert outcomes["not_ready"] <= killed["templates"]  # whoever waited for two of them
        assert outcomes[OK] > 10
        service.end(20)


def _readers(service: Running) -> list[int]:
    """The template and its workers, once it has some."""
    while len(found := descendants(service.pid)) < 2:
        time.sleep(0.01)
    return found
