"""Batching across requests, on an engine with the real graphs of `tiny`: who runs with whom, and when."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from faults_support import running
from isolatent_export import Bundle
from isolatent_export.graphs import Plain
from isolatent_export.runtime import BUCKETS, OnnxRuntime
from isolatent_serve import Settings
from isolatent_serve.engine import Engine
from isolatent_serve.observing import Silence
from isolatent_serve.outputs import Array, Graphs, Tensors, posterior, reconstruction
from isolatent_serve.problems import Problem


@dataclass(eq=False)
class Watched:
    """A computation that says what it was given, and waits for `go` when it is given the number 255."""

    sizes: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, graphs: Graphs, items: Array) -> Tensors:
        self.sizes.append(len(items))
        self.first.append(int(items[0, 0, 0, 0]))
        self.started.set()
        if self.first[-1] == 255:
            assert self.go.wait(20)
        if (items == 13).all(axis=(1, 2, 3)).any():
            raise ValueError("thirteen")
        return posterior(graphs, items)


def pictures(count: int, value: int) -> Array:
    """Pictures (count, 16, 16, 1) of one brightness."""
    return np.full((count, 16, 16, 1), value, np.uint8)


BLOCK = pictures(1, 255)


@pytest.fixture
def on_engine(bundle_path: Path) -> Callable[[Callable[[Engine], Awaitable[None]]], None]:
    """Runs a test's coroutine function with an engine that is ready."""

    @contextlib.asynccontextmanager
    async def ready() -> AsyncIterator[Engine]:
        engine = Engine("tiny")
        await engine.start(lambda: OnnxRuntime(Bundle.open(bundle_path), threads=1))
        yield engine
        await engine.close()

    def on_engine(check: Callable[[Engine], Awaitable[None]]) -> None:
        async def main() -> None:
            async with ready() as engine:
                await check(engine)

        asyncio.run(main())

    return on_engine


async def queue_up(engine: Engine, watched: Watched, *requests: Array) -> list[asyncio.Task[Tensors]]:
    """Block the worker with one request and let the others queue behind it, in this order."""
    tasks = [asyncio.create_task(engine.run(watched, BLOCK))]
    await asyncio.to_thread(watched.started.wait, 20)
    tasks += [asyncio.create_task(engine.run(watched, items)) for items in requests]
    await asyncio.sleep(0)
    return tasks


OnEngine = Callable[[Callable[[Engine], Awaitable[None]]], None]


def test_what_queued_meanwhile_runs_together_and_each_gets_its_own_rows(on_engine: OnEngine) -> None:
    async def check(engine: Engine) -> None:
        noise = np.random.default_rng(1).integers(0, 255, (17, 16, 16, 1), np.uint8)
        requests, watched = np.split(noise, [1, 3, 7, 8, 12]), Watched()
        alone = [await engine.run(posterior, items) for items in requests]
        tasks = await queue_up(engine, watched, *requests)
        watched.go.set()
        _, *together = await asyncio.gather(*tasks)
        assert watched.sizes == [1, 17]
        for expected, got in zip(alone, together, strict=True):
            for name, rows in expected.items():
                np.testing.assert_allclose(got[name], rows, rtol=0, atol=1e-5)

    on_engine(check)


def test_a_lone_request_does_not_wait_for_company(on_engine: OnEngine) -> None:
    async def check(engine: Engine) -> None:
        watched = Watched()
        for value in range(3):
            await engine.run(watched, pictures(2, value))
        assert watched.sizes == [2, 2, 2]

    on_engine(check)


def test_a_large_request_is_cut_and_takes_turns_with_small_ones(on_engine: OnEngine) -> None:
    async def check(engine: Engine) -> None:
        watched = Watched()
        large = np.concatenate([pictures(100, 1), pictures(100, 2)])
        tasks = await queue_up(engine, watched, large, pictures(1, 3))
        watched.go.set()
        _, got, _ = await asyncio.gather(*tasks)
        assert watched.sizes == [1, 64, 64, 64, 9]
        assert watched.first == [255, 1, 3, 2, 2]  # the small one was in the batch after the first
        expected = await engine.run(posterior, large[98:102])
        np.testing.assert_allclose(got["mean"][98:102], expected["mean"], rtol=0, atol=1e-5)
        assert len(got["mean"]) == 200

    on_engine(check)


def test_different_computations_take_turns_and_never_mix(on_engine: OnEngine) -> None:
    async def check(engine: Engine) -> None:
        watched = Watched()
        other = Watched(first=watched.first)
        tasks = await queue_up(engine, watched, pictures(200, 1))
        tasks.append(asyncio.create_task(engine.run(other, pictures(3, 2))))
        tasks.append(asyncio.create_task(engine.run(reconstruction, pictures(2, 2))))
        await asyncio.sleep(0)
        watched.go.set()
        done = await asyncio.gather(*tasks)
        assert other.sizes == [3]
        assert watched.first == [255, 1, 2, 1, 1, 1]  # not behind all of the large request
        assert done[3]["reconstruction"].shape == (2, 16, 16, 1)

    on_engine(check)


def test_work_whose_client_has_left_is_dropped(on_engine: OnEngine) -> None:
    async def check(engine: Engine) -> None:
        watched = Watched()
        tasks = await queue_up(engine, watched, pictures(500, 1), pictures(2, 2))
        tasks[1].cancel()
        await asyncio.sleep(0)
        watched.go.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert watched.sizes == [1, 2]

    on_engine(check)


def test_a_request_that_fails_fails_alone(on_engine: OnEngine) -> None:
    async def check(engine: Engine) -> None:
        watched = Watched()
        tasks = await queue_up(engine, watched, pictures(1, 1), pictures(2, 13), pictures(3, 2))
        watched.go.set()
        _, before, bad, after = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(bad, ValueError)
        assert isinstance(before, dict)
        assert isinstance(after, dict)
        assert (len(before["mean"]), len(after["mean"])) == (1, 3)
        assert len((await engine.run(watched, pictures(4, 1)))["mean"]) == 4

    on_engine(check)


def test_closing_drops_what_is_queued(on_engine: OnEngine) -> None:
    async def check(engine: Engine) -> None:
        watched = Watched()
        tasks = await queue_up(engine, watched, pictures(2, 1))
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0)
        watched.go.set()
        await closing
        running, queued = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(running, dict)
        assert isinstance(queued, Problem)
        assert queued.code == "worker_lost"

    on_engine(check)


def test_every_batch_size_is_warm_before_the_model_is_ready(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, run = [], Plain.run
    monkeypatch.setattr(Plain, "run", lambda self, items: (sizes.append(len(items)), run(self, items))[1])

    async def check() -> None:
        async with running(Settings(device="cpu", threads=1), bundle_path):
            assert set(BUCKETS) <= set(sizes)

    asyncio.run(check())


def test_a_delay_lets_a_request_wait_for_company(bundle_path: Path) -> None:
    async def check() -> None:
        engine = Engine("tiny", delay_seconds=0.2)
        await engine.start(lambda: OnnxRuntime(Bundle.open(bundle_path), threads=1))
        watched = Watched()
        await asyncio.gather(*(engine.run(watched, pictures(2, value)) for value in range(3)))
        assert watched.sizes == [6]
        await engine.close()

    asyncio.run(check())


def test_the_observer_hears_of_batches_waiting_and_time(bundle_path: Path) -> None:
    heard: list[tuple[object, ...]] = []

    class Listener(Silence):
        def stage(self, stage: str, seconds: float, /) -> None:
            heard.append((stage, seconds >= 0))

        def batch(self, model: str, items: int, seconds: float, /) -> None:
            heard.append(("batch", model, items, seconds > 0))

    async def check() -> None:
        engine = Engine("tiny", metrics=Listener())
        await engine.start(lambda: OnnxRuntime(Bundle.open(bundle_path), threads=1))
        watched = Watched()
        tasks = await queue_up(engine, watched, pictures(2, 1), pictures(3, 1))
        watched.go.set()
        await asyncio.gather(*tasks)
        await engine.close()

    asyncio.run(check())
    stages = [("queue", True), ("inference", True)]
    assert heard == [("batch", "tiny", 1, True), *stages, ("batch", "tiny", 5, True), *stages, *stages]
