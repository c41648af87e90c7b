"""Threads that compute give way to the one that answers, and take those they start with them."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from isolatent_serve.priority import give_way


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_a_thread_that_gives_way_takes_those_it_starts_with_it_and_no_other() -> None:
    before = nice()

    def both() -> tuple[int, int]:
        give_way()
        with ThreadPoolExecutor(1) as pool:
            return nice(), pool.submit(nice).result()

    with ThreadPoolExecutor(1) as pool:
        own, started = pool.submit(both).result()
    assert own == started == min(before + 5, 19)
    assert nice() == before
