"""A worker thread that dies or hangs: who waits for it is told at once, and the model comes back on another thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest

from faults_support import Faults, Gate, Service, die, running, until
from isolatent_export import Bundle
from isolatent_export.runtime import OnnxRuntime
from isolatent_serve import Settings, engine, registry
from isolatent_serve.engine import Engine
from isolatent_serve.outputs import posterior
from isolatent_serve.problems import Problem

PNG = {"Content-Type": "image/png"}
SETTINGS = Settings(device="cpu", threads=1)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Faults of the model `tiny`, none to begin with."""
    faults = Faults()
    monkeypatch.setattr(registry, "load_verified", faults)
    monkeypatch.setattr(engine, "BACKOFF_SECONDS", 0.001)
    return faults


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A fault that holds the thread until the test opens it, or ends."""
    gate = Gate()
    yield gate
    gate.opened.set()


def ask(service: Service, png: bytes, model: str = "tiny") -> asyncio.Task[httpx2.Response]:
    """One request."""
    return asyncio.create_task(service.client.post(f"/v1/posteriors?model={model}", content=png, headers=PNG))


async def comes_back(service: Service, png: bytes) -> bool:
    """Whether `tiny` becomes ready, and answers."""
    await until(lambda: service.engines["tiny"].ready)
    return (await ask(service, png)).status_code == 200


def test_a_thread_that_dies_is_replaced_and_its_requests_are_told(
    faults: Faults, gate: Gate, bundle_path: Path, colour_bundle_path: Path, png: bytes
) -> None:
    async def check() -> None:
        async with running(SETTINGS, bundle_path, colour_bundle_path) as service:
            reload = Gate()
            faults.encode, faults.load, gate.then = gate, reload, die
            in_hand = ask(service, png)
            await asyncio.to_thread(gate.reached.wait, 20)
            queued = ask(service, png)
            await until(lambda: service.engines["tiny"].waiting == 2)
            faults.encode = None
            gate.opened.set()
            for response in (await in_hand, await queued):
                assert (response.status_code, response.json()["code"]) == (503, "worker_lost")
                assert int(response.headers["Retry-After"]) >= 1
                assert "died (SystemExit: 3)" in response.json()["detail"]
            assert service.engines["tiny"].health == "restarting"
            assert (await service.client.get("/readyz")).status_code == 503
            meanwhile = await ask(service, png)
            assert (meanwhile.status_code, "loaded again" in meanwhile.json()["detail"]) == (503, True)
            assert (await ask(service, png, "tiny-colour")).status_code == 200  # others do not notice
            reload.opened.set()
            assert await comes_back(service, png)
            assert (await service.client.get("/readyz")).status_code == 200
            assert 'isolatent_model_restarts_total{model="tiny"} 1.0' in (await service.client.get("/metrics")).text
        assert faults.loaded == 2

    asyncio.run(check())


def test_a_thread_that_hangs_is_given_up(faults: Faults, gate: Gate, bundle_path: Path, png: bytes) -> None:
    before = set(threading.enumerate())  # services of other tests may have models of this name

    async def check() -> None:
        settings = SETTINGS.model_copy(update={"stuck_seconds": 0.5})
        async with running(settings, bundle_path) as service:
            faults.encode = gate
            in_hand = ask(service, png)
            await asyncio.to_thread(gate.reached.wait, 20)
            queued = ask(service, png)
            faults.encode = None
            for response in (await in_hand, await queued):
                assert (response.status_code, response.json()["code"]) == (503, "worker_lost")
                assert "hung for 0.5 s" in response.json()["detail"]
            assert await comes_back(service, png)
            gate.opened.set()  # it comes back after all, with nothing to say
            assert await comes_back(service, png)

    asyncio.run(check())
    assert not [thread for thread in threading.enumerate() if thread.name == "model-tiny" and thread not in before]


def test_many_calls_of_a_graph_are_not_one_that_hangs(faults: Faults, bundle_path: Path, png: bytes) -> None:
    async def check() -> None:
        settings = SETTINGS.model_copy(update={"stuck_seconds": 1.5})
        async with running(settings, bundle_path) as service:
            faults.encode = lambda: time.sleep(0.1)
            path = "/v1/consistency?samples=24"
            assert (await service.client.post(path, content=png, headers=PNG)).status_code == 200
        assert faults.loaded == 1

    asyncio.run(check())


def test_graphs_that_cannot_run_even_zeros_are_loaded_again(faults: Faults, bundle_path: Path, png: bytes) -> None:
    def broken() -> None:
        raise RuntimeError("CUDA failure 700")

    async def check() -> None:
        async with running(SETTINGS, bundle_path) as service:
            faults.encode, faults.load = broken, lambda: setattr(faults, "encode", None)
            response = await ask(service, png)
            assert (response.status_code, response.json()["code"]) == (503, "worker_lost")
            assert "CUDA failure 700" in response.json()["detail"]
            assert await comes_back(service, png)

    asyncio.run(check())


def test_what_a_thread_took_last_is_answered_when_it_is_given_up(bundle_path: Path) -> None:
    async def check() -> None:
        one = Engine("tiny")
        await one.start(lambda: OnnxRuntime(Bundle.open(bundle_path), threads=1))
        worker = one._worker
        assert worker
        worker.wake = lambda: None  # type: ignore[method-assign]  # the test takes the batch in its place
        job = asyncio.create_task(one.run(posterior, np.zeros((1, 16, 16, 1), np.uint8)))
        await asyncio.sleep(0)
        assert one.next(worker)
        one._replace(worker, "hung for 60 s")
        with pytest.raises(Problem, match="hung for 60 s"):
            await asyncio.wait_for(job, 5)
        await one.close()

    asyncio.run(check())


def test_a_thread_that_cannot_be_started_is_tried_again(
    faults: Faults, bundle_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refusals = threading.Thread.start, [1, 1]

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "model-tiny" and refusals:
            refusals.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    async def check() -> None:
        async with running(SETTINGS, bundle_path) as service:
            monkeypatch.setattr(threading.Thread, "start", refuse)
            faults.encode = die
            assert (await ask(service, png)).json()["code"] == "worker_lost"
            faults.encode = None
            assert await comes_back(service, png)
        assert refusals == []

    asyncio.run(check())


def test_a_request_to_blame_costs_nobody_the_thread(faults: Faults, bundle_path: Path, png: bytes) -> None:
    def fail_once() -> None:
        faults.encode = None
        raise MemoryError

    async def check() -> None:
        async with running(SETTINGS, bundle_path) as service:
            faults.encode = fail_once
            assert (await ask(service, png)).status_code == 500
            assert (await ask(service, png)).status_code == 200
        assert faults.loaded == 1

    asyncio.run(check())


def test_a_model_that_never_comes_back_is_given_up(faults: Faults, bundle_path: Path, png: bytes) -> None:
    def fail() -> None:
        raise OSError("the disk is gone")

    async def check() -> None:
        async with running(SETTINGS, bundle_path) as service:
            faults.encode, faults.load = die, fail
            assert (await ask(service, png)).json()["code"] == "worker_lost"
            await until(lambda: service.engines["tiny"].health == "failed")
            assert [str(failure) for failure in service.failures] == [
                "model tiny: its thread died (OSError: the disk is gone), again; restart the service"
            ]
            assert "the disk is gone" in (await service.client.get("/readyz")).json()["detail"]
            assert (await ask(service, png)).status_code == 503

    asyncio.run(check())


def test_threads_that_hang_one_after_the_other_do_not_pile_up(
    faults: Faults, gate: Gate, bundle_path: Path, png: bytes
) -> None:
    async def check() -> None:
        settings = SETTINGS.model_copy(update={"stuck_seconds": 0.5})
        async with running(settings, bundle_path) as service:
            for _ in range(engine.MOST_ABANDONED):
                faults.encode = gate
                assert (await ask(service, png)).json()["code"] == "worker_lost"
                faults.encode = None
                if service.engines["tiny"].health != "failed":
                    assert await comes_back(service, png)
            assert "hung for 0.5 s, again" in str(service.failures[0])
        gate.opened.set()

    asyncio.run(check())


def test_a_first_start_that_fails_raises_what_loading_raises() -> None:
    def load() -> OnnxRuntime:
        raise OSError("no such disk")

    async def check() -> None:
        engine = Engine("tiny")
        with pytest.raises(OSError, match="no such disk"):
            await engine.start(load)
        assert (engine.health, engine.ready, engine.provider) == ("failed", False, None)
        with pytest.raises(Problem, match="worker_lost"):
            await engine.run(posterior, np.zeros((1, 16, 16, 1), np.uint8))
        await engine.close()

    asyncio.run(check())


def test_draining_waits_for_what_was_accepted_and_no_longer(faults: Faults, gate: Gate, bundle_path: Path) -> None:
    async def check() -> None:
        engine = Engine("tiny")
        await engine.drain()  # nothing is there yet
        await engine.start(lambda: faults(Bundle.open(bundle_path), threads=1))
        faults.encode = gate
        items = np.zeros((2, 16, 16, 1), np.uint8)
        tasks = [asyncio.create_task(engine.run(posterior, items)) for _ in range(2)]
        draining = asyncio.create_task(engine.drain())
        await asyncio.to_thread(gate.reached.wait, 20)
        assert not draining.done()
        gate.opened.set()
        await draining
        assert engine.waiting == 0
        await asyncio.gather(*tasks)
        await engine.close()

    asyncio.run(check())


def test_the_engine_tells_why_it_runs_where(bundle_path: Path) -> None:
    async def check() -> None:
        engine = Engine("tiny")
        assert (engine.health, engine.provider, engine.reason) == ("starting", None, None)
        await engine.start(lambda: OnnxRuntime(Bundle.open(bundle_path), device="auto", threads=1))
        assert (engine.health, engine.provider) == ("ready", "CPUExecutionProvider")
        assert (engine.reason or "").startswith("auto: CUDAExecutionProvider ")
        await engine.close()

    asyncio.run(check())
