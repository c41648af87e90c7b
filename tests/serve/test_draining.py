"""The end of the real command: who is told to go elsewhere, who is still answered, and when it is over."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from serve_support import serving, wait_until_ready

PNG = {"Content-Type": "image/png"}


@contextlib.contextmanager
def half_sent(url: str, body: bytes) -> Iterator[socket.socket]:
    """A connection over which the service has got a request with half of its body."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        head = f"POST /v1/posteriors HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}"
        connection.sendall(head.encode() + b"\r\n\r\n" + body[:50])
        assert httpx2.get(f"{url}/healthz").status_code == 200
        yield connection


def drain(process: subprocess.Popen[str], url: str) -> httpx2.Response:
    """Send SIGTERM; the first answer of /readyz that is not 200."""
    process.send_signal(signal.SIGTERM)
    for _ in range(100):
        response = httpx2.get(f"{url}/readyz")
        if response.status_code != 200:
            return response
        time.sleep(0.01)
    raise AssertionError("still ready")


def test_new_work_is_refused_while_accepted_work_is_finished(bundle_path: Path, png: bytes) -> None:
    with serving(bundle_path) as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        with half_sent(url, png) as connection:
            for refused in (drain(process, url), httpx2.post(f"{url}/v1/posteriors", content=png, headers=PNG)):
                assert (refused.status_code, refused.json()["code"]) == (503, "draining")
                assert int(refused.headers["Retry-After"]) >= 1
            assert httpx2.get(f"{url}/healthz").status_code == 200
            connection.sendall(png[50:])
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
        assert process.wait(30) == 0


def test_a_second_signal_ends_the_draining(bundle_path: Path, png: bytes) -> None:
    with serving(bundle_path) as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        with half_sent(url, png):
            drain(process, url)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
