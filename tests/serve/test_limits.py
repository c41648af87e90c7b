"""Limits: each is checked before what it bounds is read or decoded, whatever the client claims."""

from __future__ import annotations

import http.client
import io
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

if TYPE_CHECKING:
    from conftest import Server

PNG = {"Content-Type": "image/png"}
NPY = {"Content-Type": "application/x-npy"}
TINY = "/v1/posteriors?model=tiny"


@pytest.fixture(scope="module")
def strict(start: Callable[..., str]) -> str:
    """A service that accepts 10 kB, in half a second."""
    return start(request_bytes=10_000, item_bytes=2_000, items=5, pixels=400, body_seconds=0.5)


def png_bomb(side: int) -> bytes:
    """A valid 1-bit PNG of `side` x `side` pixels, written without ever holding them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deflate, row = zlib.compressobj(9), bytes(1 + side // 8)
    rows = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def test_a_png_bomb_is_refused_before_it_is_decoded(client: httpx2.Client, server: Server) -> None:
    bomb = png_bomb(30_000)  # 900 million pixels in about 100 kB
    before = resident_mb(server.pid)
    for _ in range(5):
        response = client.post(TINY, content=bomb, headers=PNG)
        assert (response.status_code, response.json()["code"]) == (413, "too_many_pixels")
    assert resident_mb(server.pid) - before < 100
    assert "the limit is 16000000" in response.json()["detail"]


def many_items(npy: Callable[[Any], bytes]) -> Iterator[dict[str, Any]]:
    count = 10_000
    yield {"json": {"input": ["aGk="] * count}}
    yield {"json": {"input": np.zeros((count, 16, 16), int).tolist()}}
    yield {"files": [("input", b"hi")] * count}
    yield {"content": npy(np.zeros((count, 16, 16), np.uint8)), "headers": NPY}


def test_ten_thousand_items_are_refused_in_every_encoding(client: httpx2.Client, npy: Callable[[Any], bytes]) -> None:
    for body in many_items(npy):
        response = client.post(TINY, **body)
        assert (response.status_code, response.json()["code"]) == (413, "too_many_items")
        assert "1024" in response.json()["detail"]


def test_exactly_the_limit_of_items_is_answered(client: httpx2.Client, npy: Callable[[Any], bytes]) -> None:
    response = client.post(TINY, content=npy(np.zeros((1024, 16, 16), np.uint8)), headers=NPY)
    assert response.json()["usage"] == {"inputs": 1024}


def test_one_item_too_large_is_refused_in_every_encoding(strict: str) -> None:
    for body in (
        {"content": bytes(3000), "headers": PNG},
        {"files": [("input", bytes(3000))]},
        {"json": {"input": "A" * 4000}},
        {"json": {"input": ["data:;base64," + "A" * 4000]}},
    ):
        response = httpx2.post(f"{strict}/v1/posteriors", **body)
        assert (response.status_code, response.json()["code"]) == (413, "too_many_bytes")


def test_a_body_over_the_limit_is_refused(strict: str) -> None:
    response = httpx2.post(f"{strict}/v1/posteriors", content=bytes(10_001), headers=PNG)
    assert (response.status_code, response.json()["code"]) == (413, "request_too_large")
    assert "10000" in response.json()["detail"]


def test_a_chunked_body_over_the_limit_is_refused(strict: str) -> None:
    chunks = (bytes(1000) for _ in range(5_000))  # 5 MB, no Content-Length
    response = httpx2.post(f"{strict}/v1/posteriors", content=chunks, headers=PNG)
    assert (response.status_code, response.json()["code"]) == (413, "request_too_large")


def test_a_large_body_to_a_wrong_address_still_gets_its_answer(strict: str) -> None:
    response = httpx2.post(f"{strict}/nowhere", content=bytes(20_000_000), headers=PNG)
    assert response.status_code == 404
    assert response.headers["Connection"] == "close"


def connect(url: str) -> socket.socket:
    where = urlsplit(url)
    assert where.hostname
    return socket.create_connection((where.hostname, where.port or 80), timeout=20)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


HEAD = "POST /v1/posteriors HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def test_a_length_that_is_a_lie_is_refused_before_the_body_comes(strict: str) -> None:
    with connect(strict) as connection:
        connection.sendall(f"{HEAD}Content-Length: 1000000000000\r\n\r\nabc".encode())
        status, body = answer(connection)
    assert (status, b"request_too_large" in body) == (413, True)


def test_a_client_that_asks_first_is_told_before_it_sends(strict: str) -> None:
    with connect(strict) as connection:
        connection.sendall(f"{HEAD}Content-Length: 20000\r\nExpect: 100-continue\r\n\r\n".encode())
        began = time.monotonic()
        assert answer(connection)[0] == 413
        assert connection.recv(1) == b""
    assert time.monotonic() - began < 1


def test_a_body_shorter_than_its_length_times_out(strict: str) -> None:
    with connect(strict) as connection:
        connection.sendall(f"{HEAD}Content-Length: 1000\r\n\r\nabc".encode())
        status, body = answer(connection)
    assert (status, b"body_timeout" in body) == (408, True)


def test_a_body_that_drips_times_out(strict: str) -> None:
    with connect(strict) as connection:
        connection.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(8):
            connection.sendall(b"1\r\nx\r\n")
            time.sleep(0.1)
        assert answer(connection)[0] == 408


@pytest.mark.parametrize(
    "framing", ["Content-Length: -5", "Content-Length: 1e3", "Transfer-Encoding: chunked\r\n\r\nzz"]
)
def test_broken_framing_is_refused(strict: str, framing: str) -> None:
    with connect(strict) as connection:
        connection.sendall(f"{HEAD}{framing}\r\n\r\n".encode())
        assert answer(connection)[0] in (400, 408)


def test_clients_that_leave_do_no_harm(strict: str, png: bytes) -> None:
    for _ in range(50):
        with connect(strict) as connection:
            connection.sendall(f"{HEAD}Content-Length: 1000\r\n\r\nabc".encode())
    assert httpx2.post(f"{strict}/v1/posteriors", content=png, headers=PNG).status_code == 200


def test_the_deadline_ends_a_request(start: Callable[..., str], png: bytes) -> None:
    response = httpx2.post(start(deadline_seconds=1e-6) + "/v1/posteriors", content=png, headers=PNG)
    assert (response.status_code, response.json()["code"]) == (504, "deadline")
    assert "fewer" in response.json()["detail"]


def test_an_image_over_the_pixel_limit_is_refused(strict: str) -> None:
    picture = io.BytesIO(png_bomb(32))
    response = httpx2.post(f"{strict}/v1/posteriors", files={"input": picture})
    assert response.json()["code"] == "too_many_pixels"
