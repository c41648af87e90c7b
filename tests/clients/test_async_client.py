"""AsyncClient against the real service, over several event loops, forgotten and closed."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import warnings
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from safetensors.numpy import save

from isolatent import (
    APIConnectionError,
    APITimeoutError,
    AsyncClient,
    Client,
    InputError,
    NotFoundError,
    UnprocessableInputError,
)

if TYPE_CHECKING:
    from conftest import StandIn

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
ANSWER = save({"embedding": np.ones((1, 2), np.float32)}, {"model": "m", "version": "1"})


def test_every_method_gives_what_the_other_client_gives(service_url: str, client: Client, pngs: list[Path]) -> None:
    async def ask() -> None:
        async with AsyncClient(service_url) as twin:
            assert await twin.posterior(pngs[0]) == client.posterior(pngs[0])
            assert await twin.posteriors(pngs) == client.posteriors(pngs)
            assert np.array_equal(await twin.embed(pngs), client.embed(pngs))
            assert np.array_equal(await twin.reconstruct(pngs[0]), client.reconstruct(pngs[0]))
            assert np.array_equal(await twin.reconstructions(pngs), client.reconstructions(pngs))
            assert await twin.reconstruct_file(pngs[0], "png") == client.reconstruct_file(pngs[0], "png")
            assert np.array_equal(await twin.decode(np.zeros((3, 8))), client.decode(np.zeros((3, 8))))
            assert np.array_equal(await twin.consistency(pngs[:2]), client.consistency(pngs[:2]))
            assert await twin.models() == client.models()
            assert await twin.model("tiny") == client.model("tiny")
            assert await twin.ready() is True
            assert [pair async for pair in twin.iter_posteriors(pngs)] == list(client.iter_posteriors(pngs))
            for iterate in ("iter_embeddings", "iter_reconstructions"):
                ours = [row async for _, row in getattr(twin, iterate)(pngs, batch_size=2)]
                np.testing.assert_allclose(ours, [row for _, row in getattr(client, iterate)(pngs)], atol=1e-5)

    asyncio.run(ask())


def test_no_inputs_and_bad_ones(service_url: str, pngs: list[Path]) -> None:
    async def ask() -> None:
        async with AsyncClient(service_url) as client:
            assert (await client.embed([])).shape == (0, 8)
            assert (await client.reconstructions([])).shape == (0, 16, 16, 1)
            with pytest.raises(NotFoundError):
                await client.posterior(pngs[0], "huge")
            with pytest.raises(InputError, match=r"use posteriors\(\)"):
                await client.posterior(pngs)  # type: ignore[arg-type]
            with pytest.raises(UnprocessableInputError):
                await client.posterior(b"this is no picture")

    asyncio.run(ask())


def test_inputs_come_from_an_asynchronous_generator(service_url: str, pixels: Pixels) -> None:
    async def source() -> AsyncIterator[Pixels]:
        for picture in pixels:
            await asyncio.sleep(0)
            yield picture

    async def ask() -> Any:
        async with AsyncClient(service_url) as client:
            return await client.embed(source(), batch_size=3), await client.embed(pixels)

    streamed, whole = asyncio.run(ask())
    np.testing.assert_allclose(streamed, whole, atol=1e-5)


def test_one_client_serves_one_event_loop_after_another(service_url: str, pixels: Pixels) -> None:
    client = AsyncClient(service_url)
    rows = [asyncio.run(client.embed(pixels)) for _ in range(3)]
    assert np.array_equal(rows[0], rows[2])
    asyncio.run(client.close())
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(client.models())


def test_the_connections_of_a_loop_close_with_it(service_url: str, pixels: Pixels) -> None:
    client = AsyncClient(service_url)
    asyncio.run(client.embed(pixels))
    gc.collect()
    before = descriptors()
    for _ in range(10):
        asyncio.run(client.embed(pixels, batch_size=1))
    assert descriptors() <= before


@pytest.mark.parametrize("close", [True, False])
def test_clients_made_per_request_leave_nothing_open(service_url: str, pixels: Pixels, close: bool) -> None:
    async def many() -> int:
        await AsyncClient(service_url).embed(pixels)
        gc.collect()
        await asyncio.sleep(0.05)
        before = descriptors()
        for _ in range(200):
            client = AsyncClient(service_url)
            await client.embed(pixels[:1])
            if close:
                await client.close()
        del client
        gc.collect()
        await asyncio.sleep(0.05)
        return descriptors() - before

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert asyncio.run(many()) <= 2
        gc.collect()
    assert len(caught) <= 1


@pytest.mark.parametrize("close", [True, False])
def test_synchronous_clients_made_per_request_leave_nothing_open(service_url: str, pixels: Pixels, close: bool) -> None:
    with Client(service_url) as first:
        first.embed(pixels)
    before = descriptors()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(200):
            client = Client(service_url)
            client.embed(pixels[:1])
            if close:
                client.close()
        del client
        gc.collect()
    assert descriptors() <= before + 2
    assert len(caught) <= 1


def test_an_http_client_passed_in_is_used_and_left_open(stand_in: StandIn) -> None:
    stand_in.reply(200, ANSWER, content_type="application/x-safetensors")

    async def ask() -> bool:
        async with httpx2.AsyncClient(headers={"X-Mine": "yes"}) as mine:
            async with AsyncClient(stand_in.url, http_client=mine) as client:
                await client.embed(b"png")
            return mine.is_closed

    assert asyncio.run(ask()) is False
    assert stand_in.requests[0][1]["X-Mine"] == "yes"


def test_a_passing_failure_is_tried_again_and_a_silent_service_times_out(stand_in: StandIn) -> None:
    stand_in.reply(503, retry_after="0")
    stand_in.reply_raw(b"")
    stand_in.reply(200, ANSWER, content_type="application/x-safetensors")
    stand_in.reply_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 20, pause=0.1)

    async def ask() -> None:
        async with AsyncClient(stand_in.url, timeout=10) as client:
            assert (await client.embed(b"png")).shape == (1, 2)
        async with AsyncClient(stand_in.url, timeout=0.5) as client:
            with pytest.raises(APITimeoutError, match=r"within 0\.5 s") as caught:
                await client.embed(b"png")
        assert caught.value.request_id
        assert caught.value.indices == (0,)

    asyncio.run(ask())
    assert len(stand_in.requests) == 4


def test_no_service_is_a_connection_error(unused_url: str) -> None:
    with pytest.raises(APIConnectionError, match="isolatent serve BUNDLE"):
        asyncio.run(AsyncClient(unused_url, max_retries=0).models())


def test_connections_of_a_burst_close_behind_it(service_url: str, pixels: Pixels) -> None:
    async def ask() -> tuple[int, int]:
        async with AsyncClient(service_url) as client:
            await client.embed(pixels[:1])
            before = descriptors()
            await asyncio.gather(*(client.embed(pixels[:1]) for _ in range(80)))
            await asyncio.sleep(0.05)
            return descriptors() - before, len(client._driver._pools_here())

    opened, pools = asyncio.run(ask())
    assert (opened < 32, pools) == (True, 1)


class SlowLoop(asyncio.SelectorEventLoop):
    """Lets other threads in where it is asked whether it is closed."""

    def is_closed(self) -> bool:
        time.sleep(0.001)
        return super().is_closed()


def test_one_client_serves_event_loops_of_many_threads_at_once(stand_in: StandIn) -> None:
    stand_in.reply(200)
    client = AsyncClient(stand_in.url)

    def ask(_: int) -> bool:
        with asyncio.Runner(loop_factory=SlowLoop) as runner:
            return runner.run(client.ready())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(160)))


def test_a_call_that_is_cancelled_leaves_no_task_behind(stand_in: StandIn) -> None:
    stand_in.reply_raw(b"", pause=1)

    async def ask() -> set[asyncio.Task[Any]]:
        async with AsyncClient(stand_in.url) as client:
            call = asyncio.create_task(client.embed([b"png"] * 9, batch_size=1))
            await asyncio.sleep(0.2)
            call.cancel()
            await asyncio.wait([call])
            return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

    assert asyncio.run(ask()) == set()


def test_an_iterator_left_early_leaves_no_task_behind(service_url: str, pixels: Pixels) -> None:
    async def ask() -> set[asyncio.Task[Any]]:
        async with AsyncClient(service_url) as client:
            async for index, _ in client.iter_embeddings(list(pixels), batch_size=1):
                if index == 1:
                    break
            await asyncio.sleep(0.05)
            return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

    assert asyncio.run(ask()) == set()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (without a descriptor of its own)
