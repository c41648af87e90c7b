"""A request ends when its time is up, however its bytes come and go: against real connections that drip and stall."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx2
import pytest

from isolatent import APITimeoutError, Client, _transport

if TYPE_CHECKING:
    from conftest import StandIn

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def late_after(seconds: float) -> Iterator[None]:
    """What is within runs out of time, and not much later than that."""
    started = time.monotonic()
    with pytest.raises(APITimeoutError):
        yield
    assert seconds <= time.monotonic() - started < seconds + 0.5


@pytest.fixture
def slow_reader() -> Iterator[str]:
    """Takes a request a kilobyte at a time, a hundred in a second."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind(("127.0.0.1", 0))
        server.listen()
        stop = threading.Event()
        thread = threading.Thread(target=_read_slowly, args=(server, stop))
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        stop.set()
        thread.join()


def _read_slowly(server: socket.socket, stop: threading.Event) -> None:
    connection, _ = server.accept()
    with connection, suppress(OSError):
        while not stop.wait(0.01) and connection.recv(1024):
            pass


def test_headers_that_drip_are_given_up(stand_in: StandIn) -> None:
    stand_in.reply_raw(b"HTTP/1.1 200 OK\r\n", *[b"X-Header: 1\r\n"] * 20, pause=0.1)
    with Client(stand_in.url, timeout=0.5) as client, late_after(0.5):
        client.embed(b"png")


def test_a_body_that_stalls_at_the_end_of_the_time_is_given_up(stand_in: StandIn) -> None:
    stand_in.reply_raw(HEAD, b"x", b"x", pause=0.8)
    with Client(stand_in.url, timeout=1) as client, late_after(1):
        client.embed(b"png")


def test_a_request_that_is_hardly_taken_is_given_up(slow_reader: str) -> None:
    with Client(slow_reader, timeout=0.5) as client, late_after(0.5):
        client.embed(bytes(2**24))


def test_a_proxy_of_the_environment_is_used(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", stand_in.url)
    stand_in.reply(200)
    with Client("http://behind.invalid") as client:
        assert client.ready()
    assert stand_in.requests[0][1]["Host"] == "behind.invalid"


def test_other_limits_are_for_each_step(stand_in: StandIn) -> None:
    stand_in.reply_raw(HEAD, b"x", pause=0.4)
    with httpx2.Client(transport=_transport.Transport(), timeout=0.2) as http, pytest.raises(httpx2.ReadTimeout):
        http.get(stand_in.url)
    with httpx2.Client(transport=_transport.Transport(), timeout=None) as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            http.get(stand_in.url)
        with pytest.raises(httpx2.UnsupportedProtocol):
            http.get("ftp://here")
