"""The app in the test's own event loop, and models whose graphs fail in ways that a test chooses."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from isolatent_export import Bundle
from isolatent_export.runtime import OnnxRuntime
from isolatent_export.verify import load_verified
from isolatent_serve import Settings, create_app
from isolatent_serve.engine import Engine
from isolatent_serve.outputs import Array


@dataclass
class Service:
    """A service that is ready: a client of it, the engine of each model, and what has been given up."""

    client: httpx2.AsyncClient
    engines: dict[str, Engine]
    failures: list[Exception]


@contextlib.asynccontextmanager
async def running(settings: Settings, *paths: Path) -> AsyncIterator[Service]:
    """The app over these bundles, once it is ready."""
    failures: list[Exception] = []
    app = create_app(settings, [Bundle.open(path) for path in paths], on_failure=failures.append)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://x", timeout=30) as client,
    ):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
        engines = {model.manifest.name: model.engine for model in app.state.service.models}
        yield Service(client, engines, failures)


async def until(reached: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(20):
        while not reached():
            await asyncio.sleep(0.01)


@dataclass(eq=False)
class Faults:
    """What goes wrong in the graphs of one model, on whichever thread they run; put in the place of `load_verified`."""

    name: str = "tiny"
    encode: Callable[[], object] | None = None
    """Called before each batch is encoded."""
    load: Callable[[], object] | None = None
    """Called before the model is loaded."""
    loaded: int = 0

    def __call__(self, bundle: Bundle, **options: Any) -> Any:
        if bundle.manifest.name != self.name:
            return load_verified(bundle, **options)
        if self.load:
            self.load()
        self.loaded += 1
        return Faulty(load_verified(bundle, **options), self)


class Faulty:
    """Real graphs, with the faults of `faults`."""

    def __init__(self, runtime: OnnxRuntime, faults: Faults) -> None:
        self.provider, self.reason = runtime.provider, runtime.reason
        self.warm, self.decode = runtime.warm, runtime.decode
        self._runtime, self._faults = runtime, faults

    def encode(self, inputs: Array) -> tuple[Array, Array]:
        if self._faults.encode:
            self._faults.encode()
        return self._runtime.encode(inputs)

    def prove(self) -> None:
        if self._faults.encode:
            self._faults.encode()
        self._runtime.prove()


@dataclass(eq=False)
class Gate:
    """A fault that waits until it is opened, and then does as it was told."""

    then: Callable[[], object] = lambda: None
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(20)
        self.then()


def die() -> None:
    """End the thread, as nothing that a request does should."""
    raise SystemExit(3)
