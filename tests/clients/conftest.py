"""The real service in a process of its own, and a scripted stand-in for failures that a real one hardly has."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isolatent import APIConnectionError, Client

Reply = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ISOLATENT_BASE_URL", "ISOLATENT_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def service_url(bundle_path: Path) -> Iterator[str]:
    """A service with the model `tiny` only."""
    yield from _serve(bundle_path)


@pytest.fixture(scope="session")
def two_models_url(bundle_path: Path, colour_bundle_path: Path) -> Iterator[str]:
    """A service with `tiny` and `tiny-colour`."""
    yield from _serve(bundle_path, colour_bundle_path)


@pytest.fixture(scope="session")
def cloud_url(cloud_bundle_path: Path) -> Iterator[str]:
    """A service with the model `tiny-cloud` only."""
    yield from _serve(cloud_bundle_path)


@pytest.fixture(scope="session")
def mixed_url(bundle_path: Path, cloud_bundle_path: Path) -> Iterator[str]:
    """A service with `tiny`, which takes images, and `tiny-cloud`, which takes point clouds."""
    yield from _serve(bundle_path, cloud_bundle_path)


@pytest.fixture(scope="session")
def jobs_url(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with the model `tiny` that does batch jobs."""
    yield from _serve(bundle_path, "--jobs", tmp_path_factory.mktemp("jobs"), "--job-processes", "1")


def _serve(*arguments: Path | str) -> Iterator[str]:
    command = [sys.executable, "-m", "isolatent", "serve", *map(str, arguments), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines: list[str] = []
        threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True).start()
        try:
            yield _ready_address(process, lines)
        finally:
            process.terminate()
            process.wait(30)


def _ready_address(process: subprocess.Popen[str], lines: list[str]) -> str:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", "".join(lines)):
            with Client(found[0]) as client, contextlib.suppress(APIConnectionError):
                if client.ready():
                    return found[0]
        time.sleep(0.1)
    raise AssertionError("the service did not come up:\n" + "".join(lines))


@pytest.fixture
def client(service_url: str) -> Iterator[Client]:
    with Client(service_url) as client:
        yield client


@pytest.fixture(scope="session")
def pixels() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Seven grey pictures (7, 16, 16), all different."""
    return np.random.default_rng(3).integers(0, 256, (7, 16, 16), np.uint8)


@pytest.fixture
def pngs(pixels: np.ndarray[Any, np.dtype[np.uint8]], tmp_path: Path) -> list[Path]:
    """The pictures as files 0.png to 6.png."""
    paths = [tmp_path / f"{index}.png" for index in range(len(pixels))]
    for picture, path in zip(pixels, paths, strict=True):
        Image.fromarray(picture).save(path)
    return paths


@dataclass
class StandIn:
    """Answers with `replies` in turn, the last one for ever; notes what it was sent and how many connections came."""

    url: str = ""
    replies: list[Reply] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    connections: int = 0

    def reply(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Add an answer; `retry_after` becomes Retry-After."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        def write(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **named}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

        self.replies.append(write)

    def reply_raw(self, *chunks: bytes, pause: float = 0.0) -> None:
        """Add these bytes instead of an answer, then the end of the connection."""

        def write(handler: BaseHTTPRequestHandler) -> None:
            handler.close_connection = True
            for chunk in chunks:
                handler.wfile.write(chunk)
                time.sleep(pause)

        self.replies.append(write)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    script = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            script.connections += 1
            super().setup()

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script.requests.append((self.path, dict(self.headers), body))
            reply = script.replies.pop(0) if len(script.replies) > 1 else script.replies[0]
            try:
                reply(self)
            except OSError:  # the client has left
                self.close_connection = True

        do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield script
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def unused_url() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"
