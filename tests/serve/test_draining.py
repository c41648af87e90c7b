"""The end of the real command: who is told to go elsewhere, who is still answered, and when it is over."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from serve_support import half_sent, serving, wait_until_ready

PNG = {"Content-Type": "image/png"}


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


def test_the_time_for_draining_is_kept(bundle_path: Path, png: bytes) -> None:
    with serving(bundle_path, "--drain", "1") as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        with half_sent(url, png):
            drain(process, url)
            assert process.wait(20) == 0  # though the rest of the body may take 30 s


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_request_is_lost_at_the_end(bundle_path: Path, png: bytes, workers: str) -> None:
    with serving(bundle_path, "--workers", workers, "--threads", "1", "--log-level", "warning") as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        with ThreadPoolExecutor(12) as pool:
            clients = [pool.submit(ask_until_refused, url, png, keep=place % 2 == 0) for place in range(12)]
            time.sleep(1)
            process.terminate()
            answers = Counter(answer for client in clients for answer in client.result())
        assert process.wait(30) == 0
    assert answers.keys() == {"200", "503 draining"}
    assert answers["200"] > 12


def ask_until_refused(url: str, png: bytes, *, keep: bool) -> list[str]:
    """What a client gets until nobody listens any more; anything but whole answers raises."""
    where, answers = urlsplit(url), list[str]()
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    while True:
        if connection.sock is None:
            try:
                connection.connect()
            except ConnectionRefusedError:
                return answers
        connection.request("POST", "/v1/posteriors", png, PNG)
        response = connection.getresponse()
        body = json.loads(response.read())
        answers.append(f"{response.status} {body.get('code', '')}".strip())
        assert response.status == 200 or int(response.headers["Retry-After"]) >= 1
        if not keep:
            connection.close()
