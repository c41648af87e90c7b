"""The real command in a process of its own, and the app with settings of a test's choice in a thread."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from isolatent_serve import Settings
from serve_support import running, wait_until_ready

Array = np.ndarray[Any, Any]


@dataclass
class Server:
    """A service that runs: where, and as which process."""

    url: str
    pid: int


@pytest.fixture(scope="session")
def server(bundle_path: Path, colour_bundle_path: Path, cloud_bundle_path: Path) -> Iterator[Server]:
    """`isolatent serve` with the models `tiny`, `tiny-colour` and `tiny-cloud`, warnings being errors."""
    strict = ["-W", "error", "-W", "ignore::UserWarning"]  # Pillow's, about the broken files that tests send
    command = [sys.executable, *strict, "-m", "isolatent", "serve", bundle_path, colour_bundle_path, cloud_bundle_path]
    command += ["--port", "0", "--device", "cpu", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().split()[-1]
        wait_until_ready(url)
        yield Server(url, process.pid)
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    """An HTTP client of the service that names no model: most tests ask for `tiny` in `params`."""
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def start(bundle_path: Path) -> Iterator[Callable[..., str]]:
    """Start the app over `tiny` or another bundle in a thread, with limits of a test's choice; returns its address."""
    with contextlib.ExitStack() as stack:

        def start(path: Path = bundle_path, **limits: Any) -> str:
            settings = Settings.model_validate({"device": "cpu", "threads": 1, "limits": limits})
            return stack.enter_context(running(settings, path))

        yield start


@pytest.fixture(scope="session")
def grey() -> Array:
    """One grey picture (16, 16)."""
    return np.random.default_rng(5).integers(0, 256, (16, 16), np.uint8)


@pytest.fixture(scope="session")
def batch() -> Array:
    """Seven grey pictures (7, 16, 16), all different."""
    return np.random.default_rng(6).integers(0, 256, (7, 16, 16), np.uint8)


@pytest.fixture(scope="session")
def png(grey: Array) -> bytes:
    """The grey picture as a PNG file."""
    return to_png(grey)


@pytest.fixture(scope="session")
def pngs(batch: Array) -> list[bytes]:
    """The seven pictures as PNG files."""
    return [to_png(picture) for picture in batch]


def to_png(picture: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def npy() -> Callable[[Array], bytes]:
    """Turns an array into the bytes of an npy file."""

    def to_npy(array: Array) -> bytes:
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    return to_npy
