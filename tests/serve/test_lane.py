"""Small requests take the lane, and nobody can tell: their answers are those of the normal way, bit for bit."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from safetensors.numpy import load

from isolatent_serve import Settings, connections
from isolatent_serve.lane import Lane
from isolatent_serve.question import Question
from isolatent_serve.ride import Ride
from serve_support import running

Array = np.ndarray[Any, Any]
Answer = tuple[int, dict[str, str], bytes]
PNG = ("Content-Type: image/png",)
JSON = ("Content-Type: application/json",)
NPY = ("Content-Type: application/x-npy",)
OWN = ("date", "x-request-id")
"""Headers that no two answers share."""


@pytest.fixture(scope="module")
def taken() -> list[bool]:
    """Of each request that entered the lane, whether it was answered there."""
    return []


@pytest.fixture(scope="module")
def url(bundle_path: Path, colour_bundle_path: Path, cloud_bundle_path: Path, taken: list[bool]) -> Iterator[str]:
    take = Lane.take

    def watched(self: Lane, *arguments: Any) -> Ride | None:
        taken.append((ride := take(self, *arguments)) is not None)
        return ride

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lane, "take", watched)
        with running(Settings(device="cpu", threads=1), bundle_path, colour_bundle_path, cloud_bundle_path) as address:
            yield address


def exchange(url: str, target: str, headers: tuple[str, ...], body: bytes, *, slowly: bool = False) -> Answer:
    """POST over a connection of its own; `slowly`: the body comes when the request has left the lane."""
    where = urlsplit(url)
    head = head_of(target, headers, body)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        connection.sendall(head if slowly else head + body)
        if slowly:
            time.sleep(3 * connections.LANE_SECONDS + 0.5)  # looked at twice a second
            connection.sendall(body)
        with closing(http.client.HTTPResponse(connection, method="POST")) as response:
            response.begin()
            given = {name.lower(): value for name, value in response.getheaders()}
            return response.status, given, response.read()


def head_of(target: str, headers: tuple[str, ...], body: bytes) -> bytes:
    lines = (f"POST {target} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}", "", "")
    return "\r\n".join(lines).encode()


def npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def openai(png: bytes, **fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "input": base64.b64encode(png).decode()} | fields).encode()


def comparable(answer: Answer) -> tuple[int, dict[str, str], Any]:
    status, headers, body = answer
    if "json" in headers["content-type"]:
        content = json.loads(body)
        content.pop("request_id", None)
    elif "safetensors" in headers["content-type"]:  # whose metadata are in no order
        content = {name: (tensor.shape, tensor.tobytes()) for name, tensor in load(body).items()}
    else:
        content = body
    headers = {name: value for name, value in headers.items() if name not in OWN}
    return status, headers, content


def test_answers_are_those_of_the_normal_way(url: str, taken: list[bool], png: bytes, batch: Array) -> None:
    clouds = np.random.default_rng(0).normal(size=(40, 64, 3)).astype(np.float32)
    safetensors = (*PNG, "Accept: application/x-safetensors")
    cases: list[tuple[bool, str, tuple[str, ...], bytes]] = [
        (True, "/v1/posteriors?model=tiny", PNG, png),
        (True, "/v1/posteriors?model=tiny", safetensors, png),
        (True, "/v1/posteriors?model=tiny&encoding_format=base64", PNG, png),
        (True, "/v1/posteriors?model=tiny", NPY, npy(batch)),
        (True, "/v1/embeddings", JSON, openai(png)),
        (True, "/v1/embeddings", JSON, openai(png, encoding_format="base64", dimensions=8)),
        (True, "/v1/reconstructions?model=tiny", (*PNG, "Accept: image/png"), png),
        (True, "/v1/decodings?model=tiny", NPY, npy(np.zeros((3, 8), np.float32))),
        (True, "/v1/consistency?model=tiny&samples=2", PNG, png),
        (True, "/v1/posteriors?model=tiny", (*PNG, "Connection: keep-alive", "Accept: */*"), png),
        (False, "/v1/posteriors?model=tiny", PNG, png[:60]),
        (False, "/v1/posteriors?model=tiny", PNG, b"no picture"),
        (False, "/v1/posteriors?model=tiny", ("Content-Type: video/mp4",), png),
        (False, "/v1/posteriors?model=tiny", (), png),
        (False, "/v1/posteriors?model=tiny&colour=red", PNG, png),
        (False, "/v1/posteriors?model=other", PNG, png),
        (False, "/v1/posteriors", PNG, png),
        (False, "/v1/posteriors?model=tiny", (*PNG, "Accept: text/html"), png),
        (False, "/v1/embeddings", JSON, openai(png, dimensions=7)),
        (False, "/v1/embeddings", JSON, b"{"),
        (False, "/v1/decodings?model=tiny", NPY, npy(np.full((3, 8), np.nan, np.float32))),
        (False, "/v1/posteriors?model=tiny-cloud", ("Content-Type: text/plain",), b"0 0 0\n1 0 0\n0 1 1\n"),
        (True, "/v1/posteriors?model=tiny", NPY, npy(np.repeat(batch, 40, axis=0))),
        (False, "/v1/reconstructions?model=tiny", NPY, npy(np.repeat(batch, 40, axis=0))),
        (True, "/v1/posteriors?model=tiny-cloud", NPY, npy(clouds[:1])),
        (False, "/v1/posteriors?model=tiny-cloud", NPY, npy(clouds)),
    ]
    taken.clear()
    with ThreadPoolExecutor(len(cases)) as pool:
        slow = list(pool.map(lambda case: exchange(url, *case[1:], slowly=True), cases))
    assert taken == []
    for (in_lane, *request), expected in zip(cases, slow, strict=True):
        taken.clear()
        answer = exchange(url, *request)
        assert taken == [in_lane], request[:2]
        assert comparable(answer) == comparable(expected), request[:2]


@pytest.mark.parametrize(
    "header",
    ["Connection: close", "Expect: 100-continue", "Content-Encoding: gzip", "Accept: a/b\r\nAccept: */*"],
)
def test_unusual_requests_never_enter(url: str, taken: list[bool], png: bytes, header: str) -> None:
    taken.clear()
    where = urlsplit(url)
    head = f"POST /v1/posteriors?model=tiny HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n{header}\r\n"
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: {len(png)}\r\n\r\n".encode() + png)
        assert connection.recv(100).startswith(b"HTTP/1.1 ")
    assert taken == []


def test_ids_are_given_back_and_made_up(url: str, png: bytes) -> None:
    _, given, _ = exchange(url, "/v1/posteriors?model=tiny", (*PNG, "X-Request-Id: mine-1"), png)
    assert given["x-request-id"] == "mine-1"
    ids = {
        exchange(url, "/v1/posteriors?model=tiny", (*PNG, "X-Request-Id: a b"), png)[1]["x-request-id"] for _ in "ab"
    }
    assert len(ids) == 2
    assert "a b" not in ids


def test_keys_count_in_the_lane(bundle_path: Path, tmp_path: Path, png: bytes) -> None:
    file = tmp_path / "keys"
    file.write_text("me:0123456789abcdef\n")
    file.chmod(0o600)
    with running(Settings(device="cpu", threads=1, keys=file), bundle_path) as url:
        for key, expected in (("0123456789abcdef", 200), ("0123456789abcdee", 401)):
            answer = exchange(url, "/v1/posteriors", (*PNG, f"Authorization: Bearer {key}"), png)
            assert answer[0] == expected
        assert exchange(url, "/v1/posteriors", PNG, png)[0] == 401


def test_requests_that_follow_on_one_connection_are_answered_in_order(url: str, taken: list[bool], png: bytes) -> None:
    taken.clear()
    head = "POST /v1/posteriors?model=tiny HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {len(png)}\r\n"
    where = urlsplit(url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        for first in (1, 4):  # again when all are answered
            numbers = range(first, first + 3)
            requests = [f"{head}X-Request-Id: {number}\r\n\r\n".encode() + png for number in numbers]
            connection.sendall(b"".join(requests))
            received = b""
            while received.count(b"HTTP/1.1 200") < 3 or received.count(b'"usage"') < 3:
                received += connection.recv(65536)
            ids = [line[14:] for line in received.decode().splitlines() if line.startswith("x-request-id: ")]
            assert ids == [str(number) for number in numbers]
    assert taken == [True, True]  # those behind wait where uvicorn lets them wait


def test_a_fault_of_ours_is_500_with_the_id_and_the_next_request_is_answered(
    url: str, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Question, "answer", lambda *_: 1 / 0)
        status, headers, body = exchange(url, "/v1/posteriors?model=tiny", PNG, png)
    problem = json.loads(body)
    assert (status, problem["code"]) == (500, "internal")
    assert problem["request_id"] == headers["x-request-id"]
    assert exchange(url, "/v1/posteriors?model=tiny", PNG, png)[0] == 200


def test_a_head_that_arrives_with_the_end_of_a_large_body_is_not_too_large(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_BYTES", 1000)
    body = npy(np.zeros((800, 16, 16, 1), np.uint8))
    where = urlsplit(url)
    head = head_of("/v1/posteriors?model=tiny", NPY, body)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        connection.sendall(head + body[:-5000])
        time.sleep(0.2)
        connection.sendall(body[-5000:] + head[:20])
        time.sleep(0.2)
        connection.sendall(head[20:] + body)
        for _ in range(2):
            with closing(http.client.HTTPResponse(connection, method="POST")) as response:
                response.begin()
                assert response.status == 200, response.read()
                response.read()


def test_the_time_of_a_request_counts_from_its_head(url: str) -> None:
    body = npy(np.zeros((1, 16, 16, 1), np.uint8))
    where = urlsplit(url)
    head = head_of("/v1/posteriors?model=tiny", NPY, body)

    def spent() -> float:
        with closing(http.client.HTTPConnection(where.hostname or "", where.port)) as connection:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        name = 'isolatent_request_seconds_sum{method="POST",route="/v1/posteriors",status="200"}'
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    before = spent()
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        connection.sendall(head)
        time.sleep(0.15)
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert spent() - before > 0.14
