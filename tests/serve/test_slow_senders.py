"""Clients that are slow on purpose, over real sockets: each loses its connection in time, and nobody else notices."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

from isolatent_serve import RequestLimits, Settings
from isolatent_serve.connections import YIELDING_SECONDS
from serve_support import measured_memory, running, serving, wait_until_ready

Array = np.ndarray[Any, Any]

PNG = {"Content-Type": "image/png"}
HEAD = b"POST /v1/posteriors HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def hasty(bundle_path: Path) -> Iterator[str]:
    """A service that waits for half a second."""
    limits = RequestLimits(head_seconds=0.5, body_seconds=0.5, answer_seconds=0.5)
    with running(Settings(device="cpu", threads=1, keep_alive_seconds=0.5, limits=limits), bundle_path) as url:
        yield url


@pytest.fixture(scope="module")
def crowded(bundle_path: Path) -> Iterator[str]:
    """A service that has room for ten connections."""
    with running(Settings(device="cpu", threads=1, max_connections=10), bundle_path) as url:
        yield url


def address(url: str) -> tuple[str, int]:
    where = urlsplit(url)
    return where.hostname or "", where.port or 0


def connect(url: str) -> socket.socket:
    return socket.create_connection(address(url), timeout=20)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def drip(connection: socket.socket, data: bytes, pieces: int = 40) -> None:
    """Send a byte every 50 ms until the service has had enough."""
    with contextlib.suppress(OSError):
        for place in range(pieces):
            connection.sendall(data[place : place + 1])
            time.sleep(0.05)


def is_closed(connection: socket.socket) -> bool:
    """Whether the service closes the connection, without a word."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1000) == b""
    return True


def test_a_head_that_drips_is_refused(hasty: str) -> None:
    with connect(hasty) as connection:
        drip(connection, HEAD)
        status, body = answer(connection)
    assert (status, json.loads(body)["code"]) == (408, "head_timeout")
    assert len(json.loads(body)["request_id"]) == 32


def test_a_head_that_is_never_finished_is_refused(hasty: str) -> None:
    with connect(hasty) as connection:
        connection.sendall(HEAD)
        assert answer(connection)[0] == 408


def test_a_second_head_that_is_never_finished_is_refused(hasty: str) -> None:
    with connect(hasty) as connection:
        connection.sendall(GET)
        assert answer(connection)[0] == 200
        connection.sendall(HEAD)
        assert answer(connection)[0] == 408


def test_a_head_without_end_is_refused(hasty: str) -> None:
    with connect(hasty) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(HEAD + b"X: " + b"x" * 1_000_000)
        assert answer(connection)[0] == 431


def test_a_body_that_drips_is_refused(hasty: str) -> None:
    with connect(hasty) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        drip(connection, bytes(100))
        status, body = answer(connection)
    assert (status, json.loads(body)["code"]) == (408, "body_timeout")


def test_a_body_that_never_comes_is_refused(hasty: str) -> None:
    with connect(hasty) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        assert answer(connection)[0] == 408


def test_a_connection_without_a_request_is_closed(hasty: str) -> None:
    with connect(hasty) as connection:
        assert is_closed(connection)


@pytest.mark.parametrize("noise", [b"", b"\r\n"])
def test_a_connection_without_another_request_is_closed(hasty: str, noise: bytes) -> None:
    with connect(hasty) as connection:
        connection.sendall(GET)
        assert answer(connection)[0] == 200
        connection.sendall(noise)  # what stands before a head is no head
        assert is_closed(connection)


def test_what_is_not_http_is_refused_with_a_problem(hasty: str) -> None:
    with connect(hasty) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        status, body = answer(connection)
    assert (status, json.loads(body)["code"]) == (400, "malformed_http")


def test_an_answer_that_drips_is_dropped(hasty: str, npy: Callable[[Array], bytes]) -> None:
    body = npy(np.zeros((200, 16, 16), np.uint8))
    head = b"POST /v1/reconstructions HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address(hasty))
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        slow, rest = [], []
        for _ in range(60):  # the service waits for half a second, and one more for each 256 KiB
            slow.append(len(connection.recv(100)))
            time.sleep(0.1)
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(100_000):
                rest.append(len(chunk))
    assert sum(slow) == 6000
    assert sum(rest) < 400_000  # of more than 600,000


def test_idle_connections_make_room(crowded: str) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(crowded)) for _ in range(10)]
        time.sleep(YIELDING_SECONDS + 0.2)
        assert httpx2.get(f"{crowded}/healthz").status_code == 200
        closed, _, _ = select.select(idle, [], [], 5)
        assert [connection.recv(1) for connection in closed] == [b""]


def test_work_is_refused_while_all_connections_are_at_work(crowded: str, png: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(connect(crowded)).sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        time.sleep(YIELDING_SECONDS + 0.2)
        response = httpx2.post(f"{crowded}/v1/posteriors", content=png, headers=PNG)
        assert (response.status_code, response.json()["code"]) == (503, "too_many_connections")
        assert int(response.headers["Retry-After"]) >= 1
        assert httpx2.get(f"{crowded}/readyz").status_code == 200


SLOW = {
    "no request": b"",
    "half a head": HEAD,
    "no body": HEAD + b"Content-Length: 1000\r\n\r\n",
    "half a body": HEAD + b"Content-Length: 1000\r\n\r\n" + bytes(500),
    "idle after a request": GET,
}


def test_five_hundred_slow_connections_harm_nobody(bundle_path: Path, png: bytes) -> None:
    with serving(bundle_path, "--head-timeout", "3", "--body-timeout", "3", "--keep-alive", "3") as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        with contextlib.ExitStack() as stack, measured_memory(process.pid) as memory:
            slow = [stack.enter_context(connect(url)) for _ in range(500)]
            for connection, first in zip(slow, itertools.cycle(SLOW.values()), strict=False):
                connection.sendall(first)
            for _ in range(20):
                assert httpx2.post(f"{url}/v1/posteriors", content=png, headers=PNG).status_code == 200
            for connection in slow:
                while connection.recv(10_000):
                    pass
        assert memory.growth < 50
        assert httpx2.post(f"{url}/v1/posteriors", content=png, headers=PNG).status_code == 200
        process.terminate()
        assert process.wait(30) == 0
