"""A full queue: what does not fit is answered at once, with the time to come back, and nothing else suffers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from isolatent_export import Bundle
from isolatent_serve import Settings, create_app
from isolatent_serve.admission import Admission
from isolatent_serve.engine import Engine
from isolatent_serve.outputs import Array, Graphs, Tensors, posterior
from isolatent_serve.problems import Problem

PNG = {"Content-Type": "image/png"}


@contextlib.asynccontextmanager
async def running(settings: Settings, path: Path) -> AsyncIterator[tuple[httpx2.AsyncClient, Engine]]:
    """The app, ready, with a client of it, and the engine of its model."""
    app = create_app(settings, [Bundle.open(path)])
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://x") as client,
    ):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
        yield client, app.state.service.models.find("tiny").engine


@contextlib.asynccontextmanager
async def occupied(engine: Engine, count: int) -> AsyncIterator[None]:
    """Keep the engine busy with `count` items until the block ends."""
    started, go = threading.Event(), threading.Event()

    def wait(graphs: Graphs, items: Array) -> Tensors:
        started.set()
        assert go.wait(20)
        return posterior(graphs, items)

    task = asyncio.create_task(engine.run(wait, np.zeros((count, 16, 16, 1), np.uint8)))
    await asyncio.to_thread(started.wait, 20)
    yield
    go.set()
    await task


@contextlib.asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[int]:
    """The app on a real port, in the loop of the test."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


async def until(reached: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(20):
        while not reached():
            await asyncio.sleep(0.01)


def test_a_full_queue_is_429_with_the_time_to_come_back_and_recovers(bundle_path: Path, png: bytes) -> None:
    async def check() -> None:
        async with running(Settings(device="cpu", queue_items=4), bundle_path) as (client, engine):
            async with occupied(engine, 4):
                began = time.monotonic()
                refused = await client.post("/v1/embeddings", content=png, headers=PNG)
                assert time.monotonic() - began < 1
                assert (await client.get("/readyz")).status_code == 200
            accepted = await client.post("/v1/embeddings", content=png, headers=PNG)
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert "4 inputs wait for model tiny" in refused.json()["error"]["message"]
        assert accepted.status_code == 200

    asyncio.run(check())


def test_a_full_queue_refuses_before_anything_is_decoded(bundle_path: Path) -> None:
    async def check() -> None:
        settings = Settings(device="cpu", queue_items=4)
        async with running(settings, bundle_path) as (client, engine), occupied(engine, 4):
            response = await client.post("/v1/posteriors", content=b"no picture", headers=PNG)
        assert response.status_code == 429

    asyncio.run(check())


def test_the_queue_that_metrics_show_forgets_requests_that_ended_in_decoding(bundle_path: Path) -> None:
    async def check() -> list[bool]:
        async with running(Settings(device="cpu"), bundle_path) as (client, engine):
            with engine.expecting():  # a batch that begins meanwhile counts it
                async with occupied(engine, 2):
                    pass
                one = 'isolatent_queue_items{model="tiny"} 1.0' in (await client.get("/metrics")).text
            none = 'isolatent_queue_items{model="tiny"} 0.0' in (await client.get("/metrics")).text
        return [one, none]

    assert asyncio.run(check()) == [True, True]


def test_what_still_fits_is_accepted_beside_what_does_not(bundle_path: Path, png: bytes) -> None:
    async def check() -> None:
        async with running(Settings(device="cpu", queue_items=4), bundle_path) as (client, engine):
            async with occupied(engine, 2):
                too_many = await client.post("/v1/posteriors", files=[("input", png)] * 3)
                fits = asyncio.create_task(client.post("/v1/posteriors", files=[("input", png)] * 2))
                await asyncio.sleep(0.1)
            assert (await fits).status_code == 200
        assert too_many.status_code == 429
        assert "3 more do not fit" in too_many.json()["detail"]

    asyncio.run(check())


def test_a_request_larger_than_the_queue_is_accepted_when_nothing_waits(bundle_path: Path, pngs: list[bytes]) -> None:
    async def check() -> None:
        settings = Settings(device="cpu", queue_items=1, queue_bytes=1)
        async with running(settings, bundle_path) as (client, _):
            response = await client.post("/v1/posteriors", files=[("input", png) for png in pngs])
        assert (response.status_code, len(response.json()["data"])) == (200, 7)

    asyncio.run(check())


def test_bytes_count_as_well_as_items() -> None:
    admission, items = Admission("tiny", 100, 1000), np.zeros((2, 300), np.uint8)
    admission.take(items)
    with pytest.raises(Problem, match="queue_full"):
        admission.take(items)
    assert admission.items == 2
    admission.release(items)
    admission.take(items)


def test_requests_that_are_being_decoded_fill_the_queue_too() -> None:
    admission = Admission("tiny", 1, 1000)
    with admission.expected(), pytest.raises(Problem, match="queue_full"):
        admission.expected().__enter__()
    assert admission.items == 0


def test_the_time_to_come_back_grows_with_what_waits() -> None:
    admission, items = Admission("tiny", 100, 10**6), np.zeros((100, 1), np.uint8)
    for _ in range(100):
        admission.observe(10, 1.0)  # 0.1 s per item
    admission.take(items)
    with pytest.raises(Problem) as full:
        admission.require_room()
    assert full.value.headers == {"Retry-After": "10"}


def test_a_request_that_ends_early_gives_its_place_back(bundle_path: Path, png: bytes) -> None:
    async def check() -> None:
        settings = Settings.model_validate({"device": "cpu", "queue_items": 5, "limits": {"deadline_seconds": 0.2}})
        async with running(settings, bundle_path) as (client, engine), occupied(engine, 4):
            for _ in range(3):
                late = await client.post("/v1/posteriors", content=png, headers=PNG)
                assert late.status_code == 504

    asyncio.run(check())


def test_a_client_that_leaves_gives_its_place_back(bundle_path: Path, png: bytes) -> None:
    async def check() -> None:
        app = create_app(Settings(device="cpu"), [Bundle.open(bundle_path)])
        async with listening(app) as port:
            engine = app.state.service.models.find("tiny").engine
            await until(lambda: engine.ready and app.state.service.parsers.ready)
            async with occupied(engine, 1):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                head = "POST /v1/posteriors HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
                writer.write(f"{head}Content-Length: {len(png)}\r\n\r\n".encode() + png)
                await until(lambda: engine.waiting == 2)
                writer.close()
                await until(lambda: engine.waiting == 1)

    asyncio.run(check())
