"""Files that have crashed other decoders, in every encoding, while hundreds of connections are slow on purpose."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from serve_support import measured_memory
from soak_requests import BYTES, JSON, MODELS, OF_FILES, Asked, Samples, form, send
from soak_support import Running, lasting, scaled, seeded, together

CLIENTS = 3
DOCUMENTED = (200, 400, 413, 422)
MEGABYTES = 400
"""For files at the limits of what may be read, several at a time."""
HEAD = b"POST /v1/posteriors?model=tiny HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
SLOW = {
    "a byte of a head now and then": b"",
    "half a head": HEAD,
    "no body": HEAD + b"Content-Length: 1000\r\n\r\n",
    "a byte of a body now and then": HEAD + b"Content-Length: 1000\r\n\r\n" + bytes(500),
    "an answer that is not read": b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
}


@pytest.fixture(scope="module")
def files(request: pytest.FixtureRequest, samples: Samples) -> list[bytes]:
    """All hostile files there are, or, without the real data sets, those that we make."""
    with contextlib.suppress(pytest.skip.Exception):
        folder: Path = request.getfixturevalue("data_dir") / "hostile"
        return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".tsv"]
    return samples.hostile


@pytest.mark.timeout(scaled(300, 7200))
def test_hostile_files_and_slow_clients_harm_nobody(
    bundle_path: Path,
    colour_bundle_path: Path,
    turning_path: Path,
    files: list[bytes],
    png: bytes,
    tmp_path: Path,
) -> None:
    numbers = seeded("hostile files")
    everything = list(itertools.product(files, MODELS, OF_FILES, _ENCODINGS))
    chosen = numbers.sample(everything, scaled(min(300, len(everything)), len(everything)))
    hasty = ["--head-timeout", "3", "--body-timeout", "3", "--keep-alive", "3", "--max-connections", "600"]
    bundles = [bundle_path, colour_bundle_path, turning_path]
    with lasting(tmp_path / "log", *bundles, *hasty) as service:
        with measured_memory(service.pid) as memory, _slow_clients(service.url, scaled(100, 500)) as began:
            outcomes = sum(together(CLIENTS, lambda place: _ask(service, chosen[place::CLIENTS])), Counter[str]())
            service.require_alive(png)
        print(f"{len(chosen)} requests: {dict(outcomes)}; {began[0]} slow connections;", end=" ")
        print(f"memory grew by {memory.growth:.0f} MB")
        assert memory.growth < MEGABYTES
        service.end(20)


def _ask(service: Running, chosen: list[tuple[bytes, str, str, str]]) -> Counter[str]:
    outcomes = Counter[str]()
    with httpx2.Client(base_url=service.url, timeout=120) as client:
        for file, model, path, encoding in chosen:
            asked = _ENCODINGS[encoding](file, model, path)
            response = send(client, asked)
            asked.check(response)
            outcomes[str(response.status_code)] += 1
    return outcomes


def _raw(file: bytes, model: str, path: str) -> Asked:
    return Asked("raw", f"{path}?model={model}", file, {"Content-Type": BYTES}, DOCUMENTED)


def _form(file: bytes, model: str, path: str) -> Asked:
    body, kind = form([file, file], model=model, on_error="item")
    return Asked("form", path, body, {"Content-Type": kind}, DOCUMENTED)


def _base64(file: bytes, model: str, path: str) -> Asked:
    body = {"input": [base64.b64encode(file).decode()], "model": model}
    return Asked("base64", path, json.dumps(body).encode(), {"Content-Type": JSON}, DOCUMENTED)


def _data_url(file: bytes, model: str, path: str) -> Asked:
    body = {"input": f"data:image/png;base64,{base64.b64encode(file).decode()}", "model": model}
    return Asked("data URL", path, json.dumps(body).encode(), {"Content-Type": JSON}, DOCUMENTED)


def _npy(file: bytes, model: str, path: str) -> Asked:
    return Asked("npy", f"{path}?model={model}", file, {"Content-Type": "application/x-npy"}, DOCUMENTED)


def _protocol(file: bytes, model: str, _: str) -> Asked:
    tensor = {"name": "input", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(file).decode()]}
    return Asked("v2", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}).encode(), {}, DOCUMENTED)


def _protocol_binary(file: bytes, model: str, _: str) -> Asked:
    element = len(file).to_bytes(4, "little") + file
    sizes = {"binary_data_size": len(element)}
    tensor = {"name": "input", "datatype": "BYTES", "shape": [1], "parameters": sizes}
    header = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    return Asked("v2 binary", f"/v2/models/{model}/infer", header + element, headers, DOCUMENTED)


_ENCODINGS = {
    "raw": _raw,
    "form": _form,
    "base64": _base64,
    "data URL": _data_url,
    "npy": _npy,
    "v2": _protocol,
    "v2 binary": _protocol_binary,
}


@contextlib.contextmanager
def _slow_clients(url: str, count: int) -> Iterator[list[int]]:
    """So many slow connections at all times, as long as the block lasts: each that is closed is opened again."""
    done, began = threading.Event(), [0]

    def keep() -> None:
        connections: set[socket.socket] = set()
        kinds = itertools.cycle(SLOW.values())
        while not done.is_set():
            while len(connections) < count:
                connections.add(_connect(url, next(kinds)))
                began[0] += 1
            time.sleep(0.2)
            for connection in [each for each in connections if _is_over(each)]:
                connection.close()
                connections.remove(connection)
        for connection in connections:
            connection.close()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield began
    finally:
        done.set()
        thread.join()
    assert began[0] >= count


def _connect(url: str, first: bytes) -> socket.socket:
    where = urlsplit(url)
    connection = socket.create_connection((where.hostname or "", where.port or 0), timeout=30)
    connection.sendall(first)
    connection.setblocking(False)
    return connection


def _is_over(connection: socket.socket) -> bool:
    """Send another byte; whether the service has closed. What it says is not read, as slow clients do."""
    try:
        connection.send(b"X")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False
