"""The real command: what it refuses, how it becomes ready, how it ends."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from isolatent_export import Bundle, BundleError
from isolatent_export.bundle import file_digest
from isolatent_export.runtime import OnnxRuntime
from isolatent_serve import RequestLimits, Settings, create_app, registry
from isolatent_serve.access import RequestContext
from isolatent_serve.metrics import Metrics
from isolatent_serve.service import Service
from serve_support import COMMAND, running, serving, wait_until_ready


def fails(*arguments: str | Path) -> str:
    """The one line on stderr of a command that ends with 1."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("isolatent: error: ")
    return line


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(bundle_path, tmp_path / "copy"))


def test_a_flipped_byte_is_refused_by_name(copy: Path) -> None:
    content = bytearray((copy / "encoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "encoder.onnx").write_bytes(content)
    assert "encoder.onnx: sha256" in fails(copy)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert "manifest.json is missing" in fails(tmp_path)
    assert "isolatent export" in fails(tmp_path / "nowhere")


def test_two_bundles_of_one_name_are_refused(bundle_path: Path, copy: Path) -> None:
    line = fails(bundle_path, copy)
    assert "both named tiny" in line
    assert str(copy) in line


def test_outputs_outside_tolerance_end_the_process(copy: Path) -> None:
    golden = load_file(copy / "golden.safetensors")
    golden["mean"] = golden["mean"] + np.float32(0.5)
    save_file(golden, copy / "golden.safetensors")
    manifest = json.loads((copy / "manifest.json").read_text())
    facts = {"sha256": file_digest(copy / "golden.safetensors"), "bytes": (copy / "golden.safetensors").stat().st_size}
    manifest["files"]["golden.safetensors"] = facts
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with serving(copy) as (process, _):
        assert process.wait(30) == 1
        assert process.stderr
        assert "mean differs by 0.5" in process.stderr.read().splitlines()[-1]


def test_a_taken_port_is_refused_with_the_way_out(bundle_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = fails(bundle_path, "--port", str(taken.getsockname()[1]))
    assert "--port 0" in line


@pytest.mark.parametrize(
    "option", ["--port=70000", "--max-items=0", "--deadline=-1", "--threads=-1", "--device=tpu", "--parse-memory=1"]
)
def test_wrong_values_are_usage_errors(bundle_path: Path, option: str) -> None:
    done = subprocess.run([*COMMAND, bundle_path, option], capture_output=True, timeout=60, check=False)
    assert done.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(bundle_path: Path, number: signal.Signals) -> None:
    with serving(bundle_path) as (process, line):
        assert httpx2.get(f"{line.split()[-1]}/healthz").status_code == 200
        process.send_signal(number)
        assert process.wait(30) == 0


def test_an_accepted_request_is_finished_after_the_signal(bundle_path: Path, png: bytes) -> None:
    with serving(bundle_path) as (process, line):
        where = urlsplit(line.split()[-1])
        wait_until_ready(where.geturl())
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
            head = f"POST /v1/posteriors HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(png)}"
            connection.sendall(head.encode() + b"\r\n\r\n" + png[:50])
            assert httpx2.get(f"{where.geturl()}/healthz").status_code == 200  # the service has seen the first part
            process.send_signal(signal.SIGTERM)
            connection.sendall(png[50:])
            assert connection.recv(100_000).startswith(b"HTTP/1.1 200")
        assert process.wait(30) == 0


def test_machines_can_read_where_it_listens(bundle_path: Path) -> None:
    with serving(bundle_path, "--json") as (_, line):
        event = json.loads(line)
        assert event["event"] == "listening"
        assert httpx2.get(f"{event['url']}/healthz").json() == {"status": "ok"}


def test_listening_to_everyone_is_warned_about(bundle_path: Path) -> None:
    with serving(bundle_path, "--host", "0.0.0.0") as (process, line):
        assert line.startswith("Listening on http://0.0.0.0:")
        assert process.stderr
        assert "there is no authentication" in process.stderr.readline()


def test_it_answers_before_it_is_ready(bundle_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    verified, load = threading.Event(), registry.load_verified

    def load_later(*args: Bundle, **options: object) -> OnnxRuntime:
        verified.wait(30)
        return load(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(registry, "load_verified", load_later)
    app = create_app(Settings(device="cpu"), [Bundle.open(bundle_path)])

    async def check() -> None:
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/v1/models/tiny")).json()["ready"] is False
            for response in (await client.get("/readyz"), await client.post("/v1/embeddings", files={"input": png})):
                assert (response.status_code, response.json()["code"]) == (503, "not_ready")
                assert response.headers["Retry-After"] == "1"
            verified.set()
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
            assert (await client.post("/v1/embeddings", files={"input": png})).status_code == 200

    asyncio.run(check())


def test_a_model_that_fails_keeps_the_app_unready(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Bundle, **__: object) -> OnnxRuntime:
        raise BundleError("mean differs")

    monkeypatch.setattr(registry, "load_verified", refuse)
    app = create_app(Settings(device="cpu"), [Bundle.open(bundle_path)])

    async def check() -> None:
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            await asyncio.sleep(0.1)
            response = await client.get("/readyz")
            assert (response.status_code, "mean differs" in response.text) == (503, True)

    asyncio.run(check())


def test_unexpected_failures_tell_nothing_of_the_inside() -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret")

    async def check() -> httpx2.Response:
        transport = httpx2.ASGITransport(RequestContext(broken, Metrics()))
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/")

    response = asyncio.run(check())
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert response.json()["request_id"] == response.headers["X-Request-Id"]
    assert "secret" not in response.text


def test_housekeeping_that_fails_ends_nothing_and_is_reported_once(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = Counter[int]()

    def tell_metrics(service: Service) -> None:
        failures[id(service)] += 1  # other tests' services may be running, too
        raise ZeroDivisionError

    with running(Settings(), bundle_path) as url:
        with monkeypatch.context() as broken:
            broken.setattr(Service, "tell_metrics", tell_metrics)
            deadline = time.monotonic() + 10
            while failures.total() < 3 * max(1, len(failures)) and time.monotonic() < deadline:
                time.sleep(0.02)
        assert httpx2.get(f"{url}/readyz").status_code == 200
    assert failures.total() >= 3 * len(failures) > 0
    assert caplog.text.count("housekeeping failed: test_housekeeping") == len(failures)


def test_unknown_settings_are_refused() -> None:
    for facts in ({"prot": 8000}, {"limits": {"bytes": 1}}, {"port": 70000}):
        with pytest.raises(ValueError):
            Settings.model_validate(facts)
    with pytest.raises(ValueError):
        RequestLimits(items=0)


SERVE_WITHOUT_TORCH = """
import asyncio, sys
import httpx2
from isolatent_export import Bundle
from isolatent_serve import Settings, create_app
from isolatent_serve.commands import serve

async def check():
    app = create_app(Settings(device="cpu"), [Bundle.open(sys.argv[1])])
    async with app.router.lifespan_context(app):
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://x") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
            files = {"input": open(sys.argv[2], "rb").read()}
            for path in ("posteriors", "embeddings", "reconstructions"):
                assert (await client.post(f"/v1/{path}", files=files)).status_code == 200

asyncio.run(check())
assert not {"torch", "trimesh", "laspy"} & sys.modules.keys()
"""


def test_serving_never_imports_torch(bundle_path: Path, png: bytes, tmp_path: Path) -> None:
    picture = tmp_path / "digit.png"
    picture.write_bytes(png)
    subprocess.run([sys.executable, "-c", SERVE_WITHOUT_TORCH, bundle_path, picture], check=True, timeout=60)
