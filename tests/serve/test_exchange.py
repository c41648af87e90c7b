"""What ends a request early, seen by the task that answers it. Slow and lost clients have tests of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from faults_support import running
from isolatent_serve import RequestLimits, Settings


def test_the_deadline_leaves_the_task_that_answers_as_it_was(bundle_path: Path, png: bytes) -> None:
    async def check() -> None:
        task = asyncio.current_task()
        assert task
        async with running(Settings(device="cpu", limits=RequestLimits(deadline_seconds=1e-6)), bundle_path) as service:
            for _ in range(3):
                response = await service.client.post(
                    "/v1/embeddings", content=png, headers={"Content-Type": "image/png"}
                )
                assert (response.status_code, response.json()["code"]) == (504, "deadline")
                assert task.cancelling() == 0

    asyncio.run(check())


def test_bodies_in_hand_are_bounded_together(bundle_path: Path, png: bytes) -> None:
    async def check() -> None:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield png[:40]
            arrived.set()
            await go_on.wait()
            yield png[40:]

        kind = {"Content-Type": "image/png"}
        async with running(Settings(device="cpu", body_bytes=len(png) + 39), bundle_path) as service:
            slow = asyncio.create_task(service.client.post("/v1/embeddings", content=slowly(), headers=kind))
            await arrived.wait()
            refused = await service.client.post("/v1/embeddings", content=png, headers=kind)
            assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
            assert refused.headers["Retry-After"] == "1"
            go_on.set()
            assert (await slow).status_code == 200
            assert (await service.client.post("/v1/embeddings", content=png, headers=kind)).status_code == 200

    asyncio.run(check())


def test_a_request_that_others_cancel_stays_cancelled(bundle_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"\x89PNG"
        await asyncio.Event().wait()

    async def check() -> None:
        async with running(Settings(device="cpu"), bundle_path) as service:
            task = asyncio.create_task(service.client.post("/v1/embeddings", content=body()))
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    asyncio.run(check())
