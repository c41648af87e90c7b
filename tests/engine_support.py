"""The app and the engine of its model in the loop of a test, and how to keep that engine busy."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import numpy as np
from fastapi import FastAPI

from isolatent_export import Bundle
from isolatent_serve import Settings, create_app
from isolatent_serve.engine import Engine
from isolatent_serve.outputs import Array, Graphs, Tensors, posterior


@contextlib.asynccontextmanager
async def ready_app(settings: Settings, path: Path) -> AsyncIterator[tuple[FastAPI, httpx2.AsyncClient, Engine]]:
    """The app, ready, with an HTTP client of it, and the engine of its model `tiny`."""
    app = create_app(settings, [Bundle.open(path)])
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://x") as client,
    ):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
        yield app, client, app.state.service.models.find("tiny").engine


@contextlib.asynccontextmanager
async def busy(engine: Engine, count: int, seconds: float) -> AsyncIterator[None]:
    """Keep the engine of `tiny` busy with `count` items, for a time that may end within the block."""
    started = threading.Event()

    def wait(graphs: Graphs, items: Array) -> Tensors:
        started.set()
        time.sleep(seconds)
        return posterior(graphs, items)

    task = asyncio.create_task(engine.run(wait, np.zeros((count, 16, 16, 1), np.uint8)))
    await asyncio.to_thread(started.wait, 20)
    yield
    await task
