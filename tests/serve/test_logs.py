"""What the service says on stderr: an object per line, with the request's id and without what clients sent."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from isolatent_serve import logs
from isolatent_serve.access import RequestContext
from isolatent_serve.logs import JsonFormatter, TextFormatter
from isolatent_serve.metrics import Metrics
from serve_support import serving, wait_until_ready


class Lines(logging.Handler):
    """Keeps the lines that a formatter makes."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Everything that is logged during a test, as it would be written."""
    handler, root = Lines(), logging.getLogger()
    root.addHandler(handler)
    yield handler.lines
    root.removeHandler(handler)


def ask(app: Any, request_id: str = "seen") -> httpx2.Response:
    async def get() -> httpx2.Response:
        transport = httpx2.ASGITransport(RequestContext(app, Metrics()))
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/", headers={"X-Request-Id": request_id})

    return asyncio.run(get())


def record(message: str, **members: Any) -> logging.LogRecord:
    made = logging.LogRecord("some.logger", logging.WARNING, "", 0, message, None, None)
    vars(made).update(members)
    return made


@pytest.fixture(scope="module")
def logged(bundle_path: Path) -> list[str]:
    """The stderr of the real command that has answered a few requests; it is no terminal."""
    with serving(bundle_path) as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        files = {"input": b"secret content"}
        httpx2.post(f"{url}/v1/posteriors?user=secret", files=files, headers={"X-Request-Id": "bad"})
        httpx2.post(f"{url}/v1/decodings", json={"input": [[0.0] * 8, [1.0] * 8]}, headers={"X-Request-Id": "good"})
        for path in ("/a%0Ab", "/metrics", "/healthz"):
            httpx2.get(f"{url}{path}")
        process.send_signal(signal.SIGTERM)
        assert process.stderr
        return process.stderr.read().splitlines()


def access_lines(logged: list[str]) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, logged) if line["logger"] == "isolatent_serve.access"]


def test_every_line_is_an_object_with_time_level_logger_and_message(logged: list[str]) -> None:
    for line in map(json.loads, logged):
        assert list(line)[:4] == ["time", "level", "logger", "message"]
        assert line["time"].endswith("Z")
        assert line["level"] in ("info", "warning", "error")
    assert any("tiny" in json.loads(line)["message"] for line in logged)


def test_each_request_is_one_line_with_what_it_was(logged: list[str]) -> None:
    bad, good, _ = access_lines(logged)
    assert good.pop("seconds") > 0
    del good["time"], bad["time"], bad["seconds"]
    assert good == {
        "level": "info",
        "logger": "isolatent_serve.access",
        "message": "POST /v1/decodings 200",
        "request_id": "good",
        "method": "POST",
        "path": "/v1/decodings",
        "status": 200,
        "model": "tiny",
        "inputs": 2,
    }
    assert (bad["request_id"], bad["status"], bad["code"]) == ("bad", 400, "unknown_field")


def test_probes_and_scrapes_are_not_logged(logged: list[str]) -> None:
    assert {line["path"] for line in access_lines(logged)} == {"/v1/posteriors", "/v1/decodings", "/a\nb"}


def test_nothing_that_clients_send_is_logged_but_the_address(logged: list[str]) -> None:
    assert "secret" not in "".join(logged)


def test_a_failure_is_logged_with_its_request_and_place(lines: list[str]) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("out of\norder")

    assert ask(broken).status_code == 500
    failure = next(line for line in map(json.loads, lines) if line["level"] == "error")
    assert failure["request_id"] == "seen"
    assert "in broken" in failure["exception"]
    assert failure["exception"].endswith("RuntimeError: out of\norder")


def test_whatever_is_logged_during_a_request_has_its_id(lines: list[str]) -> None:
    async def chatty(_scope: Scope, _receive: Receive, send: Send) -> None:
        logging.getLogger("a.library").warning("%d is %s", 7, "odd")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    ask(chatty, "first")
    ask(chatty, "second")
    logging.getLogger("a.library").warning("between requests")
    said = [line for line in map(json.loads, lines) if line["logger"] == "a.library"]
    assert [line.get("request_id") for line in said] == ["first", "second", None]
    assert said[0]["message"] == "7 is odd"


@pytest.mark.parametrize("message", ["two\nlines", 'a quote "', "half a pair \udcff", "\x00\x1b[31m"])
def test_a_line_is_a_line_whatever_is_said(message: str) -> None:
    line = JsonFormatter().format(record(message, fields={"path": message, "odd": Path("/x")}))
    assert line.isprintable()
    assert json.loads(line)["message"] == json.loads(line)["path"] == message


def test_text_is_for_people_and_keeps_what_clients_sent_on_the_line() -> None:
    line = TextFormatter().format(record("GET unknown 404", fields={"path": "/a\nb"}))
    assert line.endswith('WARNING some.logger GET unknown 404 {"path":"/a\\nb"}')
    assert TextFormatter().format(record("plain")).endswith("some.logger plain")


def test_a_thread_that_dies_is_logged(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def die() -> None:
        raise RuntimeError("gone")

    monkeypatch.setattr(threading, "excepthook", logs.log_thread)
    thread = threading.Thread(target=die, name="worker-1")
    thread.start()
    thread.join()
    (line,) = map(json.loads, lines)
    assert (line["level"], line["message"]) == ("critical", "thread worker-1 died")
    assert line["exception"].endswith("RuntimeError: gone")


def test_format_and_level_can_be_chosen(bundle_path: Path) -> None:
    with serving(bundle_path, "--log-format", "text", "--log-level", "debug") as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        process.send_signal(signal.SIGTERM)
        assert process.stderr
        text = process.stderr.read()
    assert "DEBUG isolatent_serve.access GET /readyz 200 {" in text
    assert '"logger"' not in text
