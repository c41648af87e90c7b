"""Model directories, and the service that follows one."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import uvicorn
from safetensors.numpy import load_file, save_file

from isolatent_export import Bundle
from isolatent_export.bundle import file_digest
from isolatent_export.runtime import OnnxRuntime
from isolatent_serve import Settings, create_app, schemas
from serve_support import wait_until_ready

Array = np.ndarray[Any, Any]


def publish(bundle: Path, place: Path, **facts: Any) -> Path:
    """Copy a bundle to NAME/VERSION of a model directory as one should: under a hidden name, renamed at the end."""
    hidden = place.with_name(f".new-{place.name}")
    shutil.copytree(bundle, hidden)
    edit_manifest(hidden, {"name": place.parent.name, "version": place.name} | facts)
    return hidden.rename(place)


def edit_manifest(bundle: Path, facts: dict[str, Any]) -> None:
    file = bundle / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def spoil_golden(bundle: Path) -> None:
    """Make the bundle one that is intact, but whose graphs do not compute what it says."""
    file = bundle / "golden.safetensors"
    golden = load_file(file)
    save_file(golden | {"mean": golden["mean"] + np.float32(0.5)}, file)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files[file.name] = {"sha256": file_digest(file), "bytes": file.stat().st_size}
    edit_manifest(bundle, {"files": files})


def tamper(file: Path) -> bytes:
    """Flip one bit of a file; returns what it was."""
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    return content


@contextlib.contextmanager
def following(directory: Path, *bundles: Path, ready: bool = True) -> Iterator[httpx2.Client]:
    """The service over a model directory, in a thread."""
    app = create_app(settings(directory), [Bundle.open(path) for path in bundles])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        if ready:
            wait_until_ready(url)
        with httpx2.Client(base_url=url, timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def settings(directory: Path) -> Settings:
    return Settings(models=directory, poll_seconds=0.05, device="cpu", threads=1)


def until(condition: Callable[[], Any]) -> None:
    """Wait for something that happens within seconds, even on a busy machine."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def version(client: httpx2.Client, model: str) -> str | None:
    """The version that serves now; None when there is none."""
    response = client.get(f"/v1/models/{model}")
    return schemas.ModelFacts.model_validate_json(response.content).version if response.is_success else None


def refused(client: httpx2.Client, model: str) -> list[tuple[str | None, str]]:
    facts = schemas.ModelFacts.model_validate_json(client.get(f"/v1/models/{model}").content)
    return [(refusal.version, refusal.reason) for refusal in facts.refused]


def embedding(client: httpx2.Client, file: bytes, model: str) -> tuple[str, list[float]]:
    """The version that has answered, and its answer."""
    response = client.post(f"/v1/embeddings?model={model}", files={"input": file})
    assert response.status_code == 200, response.text
    return response.json()["version"], response.json()["data"][0]["embedding"]


def expected(bundle: Path, picture: Array) -> Array:
    mean, _ = OnnxRuntime(Bundle.open(bundle), threads=1).encode(picture[None, :, :, None])
    return mean[0]
