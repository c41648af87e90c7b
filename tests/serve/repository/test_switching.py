"""Versions of a model directory are switched under load; what goes is replaced or unloaded."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from isolatent_export import Bundle
from isolatent_export.runtime import OnnxRuntime
from isolatent_serve import create_app, outputs, parser
from isolatent_serve.consistency import divergence
from isolatent_serve.problems import Problem
from isolatent_serve.service import Service
from repository_support import (
    embedding,
    expected,
    publish,
    refused,
    settings,
    until,
    version,
)
from serve_support import descendants, serving, wait_until_ready

Array = np.ndarray[Any, Any]


def test_no_request_is_dropped_while_a_version_takes_over(
    client: httpx2.Client, directory: Path, bundle_path: Path, other_path: Path, png: bytes, grey: Array
) -> None:
    means = {"1": expected(bundle_path, grey), "2": expected(other_path, grey)}
    assert np.abs(means["1"] - means["2"]).max() > 0.01
    publish(bundle_path, directory / "busy" / "1")
    until(lambda: version(client, "busy") == "1")
    answers: list[list[tuple[str, list[float]]]] = [[] for _ in range(4)]

    def ask(mine: list[tuple[str, list[float]]]) -> None:
        with httpx2.Client(base_url=client.base_url, timeout=30) as own:
            while not mine or sum(number == "2" for number, _ in mine) < 10:
                mine.append(embedding(own, png, "busy"))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, mine) for mine in answers]
        until(lambda: all(answers) or any(one.done() for one in asking))
        publish(other_path, directory / "busy" / "2")
        for one in asking:
            one.result()  # every answer was a success
    for mine in answers:
        numbers = [number for number, _ in mine]
        assert numbers == sorted(numbers)
        assert set(numbers) == {"1", "2"}
        for number, mean in mine:
            np.testing.assert_allclose(mean, means[number], atol=1e-5)


def test_a_request_that_began_before_the_switch_ends_on_the_old_version(
    tmp_path: Path, bundle_path: Path, other_path: Path, grey: Array
) -> None:
    publish(bundle_path, tmp_path / "tiny" / "1")
    app = create_app(settings(tmp_path), [])
    service: Service = app.state.service
    item = grey[None, :, :, None]

    async def check() -> None:
        async with app.router.lifespan_context(app):
            while not service.ready:
                await asyncio.sleep(0.02)
            runtimes = count_runtimes()
            with service.working():
                old = service.models.find("tiny")
                publish(other_path, tmp_path / "tiny" / "2")
                shutil.rmtree(tmp_path / "tiny" / "1")
                while service.models.find("tiny") is old:
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.1)
                answer = await old.engine.run(outputs.embedding, item)
                np.testing.assert_allclose(answer["embedding"][0], expected(bundle_path, grey), atol=1e-5)
            await asyncio.sleep(0.5)
            with pytest.raises(Problem, match="worker_lost"):  # closed, as nothing can use it any more
                await old.engine.run(outputs.embedding, item)
            assert count_runtimes() == runtimes  # and its memory is free
            new = await service.models.find("tiny").engine.run(outputs.embedding, item)
            np.testing.assert_allclose(new["embedding"][0], expected(other_path, grey), atol=1e-5)

    asyncio.run(asyncio.wait_for(check(), 60))


def count_runtimes() -> int:
    return sum(type(each) is OnnxRuntime for each in gc.get_objects())


def test_sighup_looks_at_once(tmp_path: Path, bundle_path: Path, other_path: Path) -> None:
    publish(bundle_path, tmp_path / "tiny" / "1")
    with serving("--models", tmp_path, "--poll-seconds", "0") as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        with httpx2.Client(base_url=url, timeout=30) as client:
            publish(other_path, tmp_path / "tiny" / "2")
            time.sleep(0.3)
            assert version(client, "tiny") == "1"
            process.send_signal(signal.SIGHUP)
            until(lambda: version(client, "tiny") == "2")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_clouds_can_come_to_a_service_of_images(
    client: httpx2.Client, directory: Path, cloud_bundle_path: Path
) -> None:
    cloud = "".join(f"{x} {y} {x * y}\n" for x in range(8) for y in range(8)).encode()
    before = parsers()
    publish(cloud_bundle_path, directory / "shapes" / "1")
    until(lambda: version(client, "shapes") == "1")
    assert "shapes" in [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert len(embedding(client, cloud, "shapes")[1]) == 8
    assert parsers()["image", "point_cloud"] > before["image", "point_cloud"]
    until(lambda: parsers()[("image",)] < before[("image",)])  # those without the readers have ended


def parsers() -> Counter[tuple[str, ...]]:
    """What the parser processes below this one were started for, and how many there are."""
    commands = [Path(f"/proc/{pid}/cmdline") for pid in descendants(os.getpid())]
    arguments = [file.read_text().rstrip("\0").split("\0") for file in commands if file.exists()]
    return Counter(tuple(each[4:]) for each in arguments if each[2:3] == [parser.__file__])


def test_a_version_that_goes_gives_way_to_the_next_older_one(
    client: httpx2.Client, directory: Path, bundle_path: Path, other_path: Path, png: bytes
) -> None:
    publish(bundle_path, directory / "old" / "1")
    publish(other_path, directory / "old" / "2")
    until(lambda: version(client, "old") == "2")
    (directory / "old" / "2").rename(directory / "old" / ".2")
    until(lambda: version(client, "old") == "1")
    shutil.rmtree(directory / "old" / "1")
    until(lambda: version(client, "old") is None)
    response = client.post("/v1/embeddings?model=old", files={"input": png})
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_a_bundle_that_is_replaced_in_its_place_is_taken(
    client: httpx2.Client, directory: Path, bundle_path: Path, other_path: Path, png: bytes, grey: Array
) -> None:
    place = directory / "flat"  # without a version folder: where `isolatent export --overwrite` writes
    publish(bundle_path, place, name="flat", version="1")
    until(lambda: version(client, "flat"))
    assert scale(client, png) == pytest.approx(reference(bundle_path), rel=1e-3)
    publish(other_path, directory / "new", name="flat", version="1")
    place.rename(directory / ".old")
    (directory / "new").rename(place)
    until(lambda: np.allclose(embedding(client, png, "flat")[1], expected(other_path, grey), atol=1e-5))
    assert scale(client, png) == pytest.approx(reference(other_path), rel=1e-3)


def scale(client: httpx2.Client, png: bytes) -> float:
    """The model's own constant, as its answers about consistency use it."""
    (answer,) = client.post("/v1/consistency?model=flat", files={"input": png}).json()["data"]
    return float(answer["kl"] / answer["normalized"])


def reference(bundle: Path) -> float:
    golden = Bundle.open(bundle).golden()
    half = len(golden.mean) // 2
    strangers = np.roll(golden.mean, half, axis=0), np.roll(golden.log_variance, half, axis=0)
    return float(divergence(strangers, (golden.mean, golden.log_variance)).mean())


def test_touched_files_change_nothing(
    client: httpx2.Client, directory: Path, bundle_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    publish(bundle_path, directory / "touched" / "1")
    until(lambda: version(client, "touched"))
    for file in (directory / "touched" / "1").iterdir():
        file.touch()
    time.sleep(0.5)
    assert (version(client, "touched"), refused(client, "touched")) == ("1", [])
    assert caplog.text.count("model touched: version 1 is ready") == 1
