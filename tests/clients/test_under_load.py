"""Both clients against a service that many ask at once, that is restarted meanwhile, or that is not there.

ISOLATENT_EMBEDS is the number of arrays in each of the 64 calls at once: 10000 for the whole show.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isolatent import APIConnectionError, APITimeoutError, AsyncClient, Client
from serve_support import serving, wait_until_ready

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Rows = np.ndarray[Any, np.dtype[np.float32]]
CALLS, ARRAYS = 64, int(os.environ.get("ISOLATENT_EMBEDS", "100"))


def in_threads(url: str, batches: list[Pixels], **options: Any) -> list[Rows]:
    with Client(url, **options) as client, ThreadPoolExecutor(len(batches)) as threads:
        return list(threads.map(client.embed, batches))


def in_tasks(url: str, batches: list[Pixels], **options: Any) -> list[Rows]:
    async def ask() -> list[Rows]:
        async with AsyncClient(url, **options) as client:
            return await asyncio.gather(*map(client.embed, batches))

    return asyncio.run(ask())


@pytest.mark.timeout(3600 if ARRAYS > 1000 else 120)
@pytest.mark.parametrize("at_once", [in_threads, in_tasks])
def test_64_calls_at_once_are_answered_in_order(
    service_url: str, client: Client, at_once: Callable[..., list[Rows]]
) -> None:
    pictures = np.random.default_rng(5).integers(0, 256, (ARRAYS, 16, 16), np.uint8)
    expected = client.embed(pictures)
    rolled = [np.roll(pictures, call, axis=0) for call in range(CALLS)]
    found = at_once(service_url, rolled, timeout=120, max_retries=20)
    for call, rows in enumerate(found):
        np.testing.assert_allclose(rows, np.roll(expected, call, axis=0), atol=1e-5)


def with_threads(url: str, inputs: Iterable[Pixels]) -> Rows:
    with Client(url, timeout=90, max_retries=30) as client:
        return client.embed(inputs, batch_size=8)


def with_tasks(url: str, inputs: Iterable[Pixels]) -> Rows:
    async def ask() -> Rows:
        async with AsyncClient(url, timeout=90, max_retries=30) as client:
            return await client.embed(inputs, batch_size=8)

    return asyncio.run(ask())


@pytest.mark.parametrize(("embed", "end"), [(with_threads, "kill"), (with_tasks, "terminate")])
def test_a_call_outlives_a_restart_of_the_service(
    bundle_path: Path, unused_url: str, embed: Callable[..., Rows], end: str
) -> None:
    pictures = np.random.default_rng(6).integers(0, 256, (400, 16, 16), np.uint8)
    port = unused_url.rpartition(":")[2]
    gone = threading.Event()

    def source(process: subprocess.Popen[str]) -> Iterator[Pixels]:
        yield from pictures[:200]
        getattr(process, end)()
        gone.set()
        yield from pictures[200:]

    with ThreadPoolExecutor(1) as other:
        with serving(bundle_path, "--port", port) as (process, _):
            wait_until_ready(unused_url)
            expected = with_threads(unused_url, pictures)
            call = other.submit(embed, unused_url, source(process))
            assert gone.wait(30)
            process.wait(30)
        with serving(bundle_path, "--port", port):
            np.testing.assert_allclose(call.result(90), expected, atol=1e-5)


@pytest.mark.parametrize("at_once", [in_threads, in_tasks])
def test_a_service_that_is_down_is_a_typed_error_within_the_timeout(
    unused_url: str, at_once: Callable[..., list[Rows]]
) -> None:
    started = time.monotonic()
    with pytest.raises(APIConnectionError, match="isolatent serve BUNDLE") as caught:
        at_once(unused_url, [np.zeros((500, 4, 4), np.uint8)] * 2, timeout=2, max_retries=100)
    assert time.monotonic() - started < 6
    assert len(caught.value.inputs) == len(caught.value.indices) == 64


@pytest.mark.parametrize("at_once", [in_threads, in_tasks])
def test_a_service_that_never_answers_is_a_typed_error_within_the_timeout(at_once: Callable[..., list[Rows]]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(APITimeoutError, match="no answer within 1 s"):
            at_once(url, [np.zeros((500, 4, 4), np.uint8)], timeout=1)
        assert time.monotonic() - started < 5
