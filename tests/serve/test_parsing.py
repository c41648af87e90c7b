"""Parser processes: what a file can do to its own, and that it costs nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from isolatent_export import Bundle, BundleError
from isolatent_export.inputs import InputError, Limits
from isolatent_export.manifest import ImageInput, PointCloudInput
from isolatent_serve import Settings, create_app, parser, registry
from isolatent_serve.isolation import needs_process
from isolatent_serve.parsing import Parsers
from isolatent_serve.workers import Lost
from serve_support import all_gone, cpu_ticks, descendants, serving, wait_until_ready
from serve_support import workers as workers_of

Array = np.ndarray[Any, Any]
PLY = {"Content-Type": "model/ply"}
CLOUD = PointCloudInput(points=64)


def ascii_ply(count: int) -> bytes:
    """A cloud of `count` points as text, slow to read."""
    lines = np.char.mod("%.6f", np.random.default_rng(0).normal(size=(count, 3)))
    header = f"ply\nformat ascii 1.0\nelement vertex {count}\nproperty float x\nproperty float y\nproperty float z\n"
    return (header + "end_header\n" + "\n".join(map(" ".join, lines.tolist())) + "\n").encode()


@pytest.fixture(scope="module")
def small() -> bytes:
    """A cloud of 200 points."""
    return ascii_ply(200)


@pytest.fixture(scope="module")
def large() -> bytes:
    """A cloud that takes a good part of a second to read."""
    return ascii_ply(400_000)


@pytest.fixture(scope="module")
def service(cloud_bundle_path: Path, bundle_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service of its own for rough treatment: two workers, a second per file."""
    with serving(cloud_bundle_path, bundle_path, "--parse-timeout", "2") as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        yield process, url
        process.terminate()
        assert process.wait(30) == 0


def post(url: str, content: bytes, model: str = "tiny-cloud", **options: Any) -> httpx2.Response:
    return httpx2.post(f"{url}/v1/posteriors?model={model}", content=content, headers=PLY, timeout=60, **options)


def outcome(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json().get("code", "good")


def wait_for_work(service: int) -> int:
    """The first worker seen to compute, some of its work done."""
    before = {pid: cpu_ticks(pid) for pid in workers_of(service)}
    while True:
        for pid in workers_of(service):
            if cpu_ticks(pid) > before.get(pid, 0) + 5:
                return pid


def test_a_parser_killed_in_the_act_costs_one_file(
    service: tuple[subprocess.Popen[str], str], small: bytes, large: bytes
) -> None:
    process, url = service
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(post, url, large)
        os.kill(wait_for_work(process.pid), signal.SIGKILL)
        assert outcome(asked.result()) == (422, "parser_crashed")
    assert "binary PLY" in asked.result().json()["detail"]
    assert outcome(post(url, small)) == (200, "good")


def test_a_parser_that_hangs_costs_one_file(
    service: tuple[subprocess.Popen[str], str], small: bytes, large: bytes
) -> None:
    process, url = service
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(post, url, large)
        stopped = wait_for_work(process.pid)
        os.kill(stopped, signal.SIGSTOP)
        assert outcome(post(url, small)) == (200, "good")  # another worker takes it
        assert outcome(asked.result()) == (422, "parser_timeout")
    assert "2 s" in asked.result().json()["detail"]
    assert all_gone([stopped])
    assert outcome(post(url, small)) == (200, "good")


def test_other_files_of_the_request_are_answered(
    service: tuple[subprocess.Popen[str], str], small: bytes, large: bytes
) -> None:
    process, url = service
    files = [("input", data) for data in (small, large, small, small)]
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx2.post, f"{url}/v1/posteriors?model=tiny-cloud&on_error=item", files=files, timeout=60)
        os.kill(wait_for_work(process.pid), signal.SIGKILL)
        data = asked.result().json()["data"]
    assert [item.get("code", "good") for item in data] == ["good", "parser_crashed", "good", "good"]


def test_workers_and_template_that_die_between_files_cost_nothing(
    service: tuple[subprocess.Popen[str], str], small: bytes
) -> None:
    process, url = service
    for kill in ("workers", "template"):
        template, *workers = descendants(process.pid)
        for pid in workers if kill == "workers" else [template]:
            with contextlib.suppress(ProcessLookupError):  # one that was ending
                os.kill(pid, signal.SIGKILL)
        assert all_gone(workers)  # those of a template end with it
        assert outcome(post(url, small)) == (200, "good")


def test_a_client_that_leaves_frees_its_worker(
    service: tuple[subprocess.Popen[str], str], small: bytes, large: bytes
) -> None:
    _, url = service
    for _ in range(4):
        with contextlib.suppress(httpx2.TimeoutException):
            httpx2.post(f"{url}/v1/posteriors?model=tiny-cloud", content=large, headers=PLY, timeout=0.3)
    assert outcome(post(url, small)) == (200, "good")


def test_image_workers_share_the_pool(service: tuple[subprocess.Popen[str], str], grey: Array) -> None:
    process, url = service
    answers = [post(url, picture(grey, kind), model="tiny").json()["data"] for kind in ("PNG", "TIFF", "TGA", "BMP")]
    assert answers == answers[:1] * 4
    assert len(workers_of(process.pid)) <= len(os.sched_getaffinity(0))


def test_memory_beyond_the_limit_costs_one_file(cloud_bundle_path: Path, small: bytes, large: bytes) -> None:
    with serving(cloud_bundle_path, "--parse-memory", "16") as (_, line):
        url = line.split()[-1]
        wait_until_ready(url)
        for _ in range(3):
            response = post(url, large)
            assert outcome(response) == (422, "parser_memory")
            assert "more than 16 MiB" in response.json()["detail"]
            assert outcome(post(url, small)) == (200, "good")
        assert outcome(post(url, large * 2)) == (422, "parser_memory")  # more than fits in at all


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_service(cloud_bundle_path: Path, large: bytes, number: signal.Signals) -> None:
    with serving(cloud_bundle_path) as (process, line), ThreadPoolExecutor() as pool:
        url = line.split()[-1]
        wait_until_ready(url)
        asked = pool.submit(post, url, large)
        wait_for_work(process.pid)
        below = descendants(process.pid)
        assert len(below) >= 2
        process.send_signal(number)
        process.wait(30)
        if number == signal.SIGKILL:
            assert isinstance(asked.exception(), httpx2.TransportError)
        else:
            assert outcome(asked.result()) == (200, "good")  # accepted, so finished
        assert all_gone(below)


def test_readers_of_clouds_are_loaded_nowhere_but_where_they_are_needed(
    service: tuple[subprocess.Popen[str], str], bundle_path: Path, small: bytes
) -> None:
    process, url = service
    post(url, small)
    assert [loads_readers(pid) for pid in (process.pid, *descendants(process.pid)[:2])] == [False, True, True]
    with serving(bundle_path) as (images, line):
        wait_until_ready(line.split()[-1])
        assert not any(loads_readers(pid) for pid in (images.pid, *descendants(images.pid)))


def loads_readers(pid: int) -> bool:
    return "/lazrs" in Path(f"/proc/{pid}/maps").read_text()


def test_without_the_readers_a_cloud_model_is_refused(
    cloud_bundle_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    with pytest.raises(BundleError, match=r'trimesh.*pip install "isolatent\[clouds'):
        create_app(Settings(), [Bundle.open(cloud_bundle_path)])
    create_app(Settings(), [Bundle.open(bundle_path)])


def picture(pixels: Array, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "isolated"),
    [
        *((kind, False) for kind in ("PNG", "JPEG", "WEBP", "BMP", "PPM")),
        *((kind, True) for kind in ("TIFF", "GIF", "TGA")),
    ],
)
def test_the_content_decides_which_pictures_are_isolated(grey: Array, kind: str, isolated: bool) -> None:
    data, image = picture(grey, kind), ImageInput(height=16, width=16, channels=1)
    assert needs_process(data, image, Limits()) is isolated
    assert needs_process(data, CLOUD, Limits()) is True
    assert needs_process(data, CLOUD, Limits(item_bytes=10)) is False  # refused at once


def test_npy_stays_and_the_unknown_goes(grey: Array, npy: Callable[[Array], bytes]) -> None:
    image = ImageInput(height=16, width=16, channels=1)
    assert not needs_process(npy(grey), image, Limits())
    assert not needs_process(npy(grey), CLOUD, Limits())
    assert not needs_process(b"", CLOUD, Limits())
    assert needs_process(b"who knows", image, Limits())


@contextlib.asynccontextmanager
async def running(count: int = 2, seconds: float = 5.0) -> AsyncIterator[Parsers]:
    parsers = Parsers(count, seconds, 192, ["point_cloud"])
    parsers.launch()
    await parsers.start()
    try:
        yield parsers
    finally:
        await parsers.close()


def test_a_request_of_one_file_passes_one_of_many(small: bytes) -> None:
    async def check() -> None:
        async with running() as parsers:
            many = asyncio.create_task(parsers.parse([small] * 500, CLOUD, Limits()))
            await asyncio.sleep(0.02)
            (alone,) = await parsers.parse([small], CLOUD, Limits())
            assert not many.done()
            assert all(np.array_equal(cloud, alone) for cloud in await many)

    asyncio.run(check())


def test_a_cancelled_request_frees_its_place(small: bytes, large: bytes) -> None:
    async def check() -> None:
        async with running(count=1) as parsers:
            cancelled = asyncio.create_task(parsers.parse([large] * 50, CLOUD, Limits()))
            await asyncio.sleep(0.2)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            began = time.monotonic()
            (cloud,) = await parsers.parse([small], CLOUD, Limits())
            assert isinstance(cloud, np.ndarray)
            assert time.monotonic() - began < 1

    asyncio.run(check())


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Let workers run another parser.py: with `old` replaced by `new`."""

    def change(old: str, new: str) -> None:
        source = Path(parser.__file__).read_text()
        assert source.count(old) == 1
        (tmp_path / "parser.py").write_text(source.replace(old, new))
        monkeypatch.setattr(parser, "__file__", str(tmp_path / "parser.py"))

    return change


def test_a_worker_is_replaced_after_many_files(small: bytes, changed: Callable[[str, str], None]) -> None:
    changed("FILES_PER_WORKER = 2000", "FILES_PER_WORKER = 3")

    async def check() -> set[int]:
        pids: set[int] = set()
        async with running(count=1) as parsers:
            for _ in range(9):
                (cloud,) = await parsers.parse([small], CLOUD, Limits())
                assert isinstance(cloud, np.ndarray)
                pids |= set(workers_of(os.getpid()))
        return pids

    assert len(asyncio.run(check())) >= 2


GOOD_ANSWER = "return {}, np.ascontiguousarray(decode_item(data, spec, limits)).tobytes()"


@pytest.mark.parametrize(
    "said",
    [
        "return {}, bytes(7)",
        "return {}, bytes(2**20)",
        "return {}, b''",
        "return {'code': 'internal', 'detail': 'x'}, b''",
        "return {'code': ['undecodable']}, b''",
        "return {'code': 'undecodable', 'more': 1}, b''",
        "return {'code': 'undecodable', 'detail': 'x' * 5000}, b''",
        "return {'code': 'undecodable'}, b''",
        "return {'code': 'undecodable', 'detail': [[[[]]]]}, b''",
    ],
)
def test_a_worker_that_was_taken_over_is_not_believed(
    small: bytes, changed: Callable[[str, str], None], said: str
) -> None:
    changed(GOOD_ANSWER, said)

    async def check() -> None:
        async with running(count=1) as parsers:
            (error,) = await parsers.parse([small], CLOUD, Limits())
            assert isinstance(error, InputError)
            assert error.code == "parser_crashed"

    asyncio.run(check())


def test_a_template_that_cannot_start_is_a_reason_not_to_serve(changed: Callable[[str, str], None]) -> None:
    changed("import contextlib\n", "import no_such_module\n")

    async def check() -> None:
        parsers = Parsers(1, 5.0, 192, ["point_cloud"])
        parsers.launch()
        with pytest.raises(Lost, match="no process that reads files can be started"):
            await parsers.start()
        await parsers.close()

    asyncio.run(check())


def test_secrets_of_the_service_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOLATENT_SECRET", "swordfish")

    async def check() -> None:
        async with running():
            for pid in descendants(os.getpid()):
                if "parser.py" in Path(f"/proc/{pid}/cmdline").read_text():
                    assert "swordfish" not in Path(f"/proc/{pid}/environ").read_text()

    asyncio.run(check())
