"""Almost-HTTP over real sockets: an answer of the documented shape or a closed connection, and no harm."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections import Counter
from urllib.parse import urlsplit

import h11
import pytest

from soak_mutations import Mutations
from soak_requests import Mixture, Samples
from soak_support import Running, require_documented, scaled, seeded, together

CLIENTS = 24
SILENCE_SECONDS = 0.1
"""After an answer: that no other follows."""
PATIENCE = 30.0
"""The service waits for two seconds; the machine may be busy."""


@pytest.mark.timeout(scaled(300, 7200))
def test_spoilt_requests_are_answered_or_closed(service: Running, samples: Samples, png: bytes) -> None:
    numbers = seeded("sockets")
    total, outcomes = scaled(200, 10_000), Counter[str]()
    while outcomes["connections"] < total:
        seeds = [numbers.getrandbits(64) for _ in range(CLIENTS)]
        outcomes += sum(
            together(CLIENTS, lambda place, seeds=seeds: _fuzz(service.url, samples, seeds[place], 5)), Counter[str]()
        )
        service.require_alive(png)  # after each hundred and a few
    print(dict(outcomes))
    assert outcomes["answers"] > total / 2


def _fuzz(url: str, samples: Samples, seed: int, count: int) -> Counter[str]:
    numbers = random.Random(seed)
    mixture, mutations, outcomes = Mixture(samples, numbers), Mutations(numbers), Counter[str]()
    for _ in range(count):
        asked = mixture.next()
        data = mutations.spoil(_as_bytes(asked.path, asked.headers, asked.body))
        answers = _exchange(url, mutations.pieces(data))
        try:
            for status, headers, body in answers:
                require_documented(status, headers, body)
                outcomes[str(status)] += 1
        except Exception as error:
            raise AssertionError(f"{data[:800]!r} got {answers!r:.1000}") from error
        outcomes["connections"] += 1
        outcomes["answers"] += bool(answers)
    return outcomes


def _as_bytes(path: str, headers: dict[str, str], body: bytes | None) -> bytes:
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: x"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [] if body is None else [f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def _exchange(url: str, pieces: list[bytes]) -> list[tuple[int, dict[str, str], bytes]]:
    """Send, and read whole answers until the service closes or has nothing more to say. Raises for half an answer."""
    where, received = urlsplit(url), b""
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):  # it may have heard enough
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.01 if len(pieces) > 1 else 0)
        while True:
            answers, whole = _answers(received, ended=False)
            connection.settimeout(SILENCE_SECONDS if answers and whole else PATIENCE)
            try:
                more = connection.recv(2**18)
            except ConnectionResetError:  # it has closed, and what was still sent came too late
                return answers
            except TimeoutError:
                assert answers, "neither an answer nor the end"
                return answers
            if not more:
                answers, whole = _answers(received, ended=True)
                assert whole, f"half an answer: {received!r:.500}"
                return answers
            received += more


def _answers(data: bytes, *, ended: bool) -> tuple[list[tuple[int, dict[str, str], bytes]], bool]:
    """The whole answers in `data`, and whether there is nothing else in it."""
    answers = []
    while data:
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
        parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(data)
        if ended:
            parser.receive_data(b"")
        answer = _next(parser)
        if answer is None:
            return answers, False
        answers.append(answer)
        data = parser.trailing_data[0]
    return answers, True


def _next(parser: h11.Connection) -> tuple[int, dict[str, str], bytes] | None:
    status, headers, body = 0, dict[str, str](), b""
    while True:
        match parser.next_event():
            case h11.Response(status_code=status, headers=raw):
                headers = {name.decode().title(): value.decode() for name, value in raw}
            case h11.Data(data=data):
                body += data
            case h11.EndOfMessage():
                return status, headers, body
            case h11.InformationalResponse():
                pass
            case _:
                return None
