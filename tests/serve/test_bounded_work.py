"""Requests that would take too much memory are refused before they do; what nobody waits for any more stops."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from faults_support import Gate, Service, running
from isolatent_export.inputs import sampling
from isolatent_serve import RequestLimits, Settings, inputs
from support import export_untrained_cloud

NPY = {"Content-Type": "application/x-npy"}


def to_npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


async def refused(service: Service, path: str, **request: Any) -> httpx2.Response:
    """The answer to a request that must be refused as too large."""
    response = await service.client.post(path, **request)
    assert (response.status_code, response.json()["code"]) == (413, "too_much_memory")
    return response


def test_inputs_that_take_too_much_memory_are_refused_before_they_are_decoded(bundle_path: Path, png: bytes) -> None:
    async def check() -> None:
        limits = RequestLimits(decoded_bytes=3 * 256)  # three grey pictures of 16 x 16
        async with running(Settings(device="cpu", limits=limits), bundle_path) as service:
            broken = [("input", b"no picture")] * 4
            response = await refused(service, "/v1/embeddings", files=broken)
            assert (
                "4 inputs take 1024 bytes once decoded, the limit is 768; send at most 3" in response.json()["detail"]
            )
            four = np.zeros((4, 16, 16), np.uint8)
            await refused(service, "/v1/embeddings", content=to_npy(four), headers=NPY)
            await refused(service, "/v1/embeddings", json={"input": four.tolist()})
            three = await service.client.post("/v1/embeddings", files=[("input", png)] * 3)
            assert (three.status_code, len(three.json()["data"])) == (200, 3)

    asyncio.run(check())


def test_clouds_count_by_the_points_that_the_encoder_takes(cloud_bundle_path: Path) -> None:
    async def check() -> None:
        limits = RequestLimits(decoded_bytes=2 * 64 * 3 * 4)
        async with running(Settings(device="cpu", limits=limits), cloud_bundle_path) as service:
            large = np.random.default_rng(1).normal(size=(2, 5000, 3)).astype(np.float32)
            response = await service.client.post("/v1/embeddings", content=to_npy(large), headers=NPY)
            assert response.status_code == 200
            small = np.random.default_rng(1).normal(size=(3, 2, 3)).astype(np.float32)
            await refused(service, "/v1/embeddings", content=to_npy(small), headers=NPY)

    asyncio.run(check())


def test_an_answer_that_takes_too_much_memory_is_refused(bundle_path: Path) -> None:
    async def check() -> None:
        limits = RequestLimits(decoded_bytes=2048)  # a reconstruction is 16 x 16 float32 and its error
        async with running(Settings(device="cpu", limits=limits), bundle_path) as service:
            pictures = to_npy(np.zeros((2, 16, 16), np.uint8))
            response = await refused(service, "/v1/reconstructions", content=pictures, headers=NPY)
            assert "the answer to 2 inputs takes 2056 bytes" in response.json()["detail"]
            assert (await service.client.post("/v1/posteriors", content=pictures, headers=NPY)).status_code == 200

    asyncio.run(check())


async def late(service: Service, gate: Gate, path: str, **request: Any) -> None:
    """A request whose deadline passes while `gate` holds its decoding; then the gate is opened."""
    response = await service.client.post(path, **request)
    assert (response.status_code, response.json()["code"]) == (504, "deadline")
    assert gate.reached.is_set()
    gate.opened.set()


async def threads_are_free(service: Service, png: bytes) -> None:
    """Every decoding thread does something else again: many pictures are decoded on all of them, sooner or later."""
    async with asyncio.timeout(20):
        while (await service.client.post("/v1/embeddings?model=tiny", files=[("input", png)] * 32)).status_code != 200:
            pass


def test_sampling_stops_at_the_deadline(
    bundle_path: Path, tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, sampled, farthest = Gate(), [], sampling._farthest

    def slow(cloud: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
        chosen = farthest(cloud, count)
        sampled.append(count)
        gate()
        return chosen

    async def check() -> None:
        path = export_untrained_cloud(tmp_path / "thinned", sampling="farthest").path
        settings = Settings(device="cpu", limits=RequestLimits(deadline_seconds=1.5))
        async with running(settings, path, bundle_path) as service:
            monkeypatch.setattr(sampling, "_farthest", slow)
            clouds = np.random.default_rng(1).normal(size=(50, 100, 3)).astype(np.float32)
            await late(service, gate, "/v1/embeddings?model=thinned", content=to_npy(clouds), headers=NPY)
            await threads_are_free(service, png)
        assert sampled == [64]  # the second cloud was not begun

    asyncio.run(check())


def test_decoding_stops_at_the_deadline(bundle_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, decoded, decode = Gate(), [], inputs.decode

    def slow(item: Any, *arguments: Any) -> Any:
        decoded.append(item)
        gate()
        return decode(item, *arguments)

    async def check() -> None:
        settings = Settings(device="cpu", limits=RequestLimits(deadline_seconds=1.5))
        async with running(settings, bundle_path) as service:
            with monkeypatch.context() as patch:
                patch.setattr(inputs, "decode", slow)
                await late(service, gate, "/v1/embeddings", files=[("input", png)] * 100)
                begun = len(decoded)
            await threads_are_free(service, png)
        assert len(decoded) == begun < 100

    asyncio.run(check())
