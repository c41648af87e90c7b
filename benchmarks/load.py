"""Callers that call as fast as they can."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def rate(call: Callable[[], object], threads: int, seconds: float) -> float:
    """Calls per second of `threads` callers at once."""
    call()
    start = time.perf_counter()

    def work() -> int:
        count = 0
        while time.perf_counter() - start < seconds:
            call()
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        done = sum(future.result() for future in [pool.submit(work) for _ in range(threads)])
    return done / (time.perf_counter() - start)
