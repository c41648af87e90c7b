"""Every kind of request in random order and by several clients: documented answers, and no memory lost."""

from __future__ import annotations

import random
from collections import Counter

import httpx2
import numpy as np
import pytest

from soak_requests import Mixture, Samples, send
from soak_support import Running, scaled, seeded, together

CLIENTS = 4
MEGABYTES = 50
"""That the line through the measured memory may rise by, from the first request after the warm-up to the last."""


@pytest.mark.timeout(scaled(300, 7200))
def test_mixed_requests_take_no_memory_for_good(service: Running, samples: Samples, png: bytes) -> None:
    numbers, count = seeded("mixed requests"), scaled(500, 20_000)
    _ask_all(service, samples, numbers, count // 4)  # the warm-up
    kinds, memory = _ask_all(service, samples, numbers, count)
    slope = np.polyfit(np.linspace(0, 1, len(memory)), memory, 1)[0]
    print(f"{kinds.total()} requests of {len(kinds)} kinds; memory {memory[0]:.0f} to {memory[-1]:.0f} MB,", end=" ")
    print(f"at most {max(memory):.0f}; rise of the line through it {slope:.1f} MB")
    assert slope < MEGABYTES
    service.require_alive(png)


def _ask_all(
    service: Running, samples: Samples, numbers: random.Random, count: int
) -> tuple[Counter[str], list[float]]:
    """Ask by several clients; how often each kind, and the memory that one of them has seen."""
    mixtures = [Mixture(samples, random.Random(numbers.getrandbits(64))) for _ in range(CLIENTS)]
    results = together(CLIENTS, lambda place: _ask(service, mixtures[place], count // CLIENTS, watch=place == 0))
    return sum((kinds for kinds, _ in results), Counter[str]()), results[0][1]


def _ask(service: Running, mixture: Mixture, count: int, *, watch: bool) -> tuple[Counter[str], list[float]]:
    kinds, memory = Counter[str](), [service.memory]
    step = max(1, count // 50)
    with httpx2.Client(base_url=service.url, timeout=60) as client:
        for number in range(count):
            asked = mixture.next()
            asked.check(send(client, asked))
            kinds[asked.kind] += 1
            if watch and number % step == 0:
                memory.append(service.memory)
    return kinds, memory
