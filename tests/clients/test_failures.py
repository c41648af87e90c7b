"""Failures that a real service hardly has: refusals to order, drops, garbage, slow answers."""

from __future__ import annotations

import io
import json
import logging
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from safetensors.numpy import save

from isolatent import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    Client,
    InternalServerError,
    RateLimitError,
    ServiceUnavailableError,
    UnprocessableInputError,
)
from isolatent._errors import status_error
from isolatent.cli import main

if TYPE_CHECKING:
    from conftest import StandIn

SAFETENSORS = {"content_type": "application/x-safetensors"}
PROBLEM = {"content_type": "application/problem+json"}
PICTURES = np.zeros((3, 4, 4), np.uint8)


def embedding(rows: int, d: int = 2) -> bytes:
    return save({"embedding": np.ones((rows, d), np.float32)}, {"model": "tiny", "version": "1"})


def problem(**members: Any) -> bytes:
    return json.dumps({"type": "urn:isolatent:problem:x", "status": 422} | members).encode()


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_passing_failure_is_tried_again(stand_in: StandIn, status: int) -> None:
    stand_in.reply(status, retry_after="0")
    stand_in.reply(200, embedding(1), **SAFETENSORS)
    with Client(stand_in.url) as client:
        assert client.embed(b"png").shape == (1, 2)
    assert len(stand_in.requests) == 2
    assert all(b"png" in body for _, _, body in stand_in.requests)


def test_retry_after_in_seconds_is_waited_for(stand_in: StandIn) -> None:
    stand_in.reply(429, retry_after="1")
    stand_in.reply(200, embedding(1), **SAFETENSORS)
    started = time.monotonic()
    with Client(stand_in.url) as client:
        client.embed(b"png")
    assert 1.0 <= time.monotonic() - started < 3.0


def test_retry_after_as_a_date_is_waited_for(stand_in: StandIn) -> None:
    stand_in.reply(503, retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True))
    stand_in.reply(200, embedding(1), **SAFETENSORS)
    started = time.monotonic()
    with Client(stand_in.url) as client:
        client.embed(b"png")
    assert 0.9 <= time.monotonic() - started < 4.0


def test_a_retry_after_beyond_reason_is_given_up_at_once(stand_in: StandIn) -> None:
    stand_in.reply(429, retry_after="3600")
    with Client(stand_in.url, timeout=7200) as client, pytest.raises(RateLimitError) as caught:
        client.embed(b"png")
    assert caught.value.retry_after == 3600
    assert len(stand_in.requests) == 1


def test_a_service_that_always_says_503_is_left_within_the_timeout(stand_in: StandIn) -> None:
    stand_in.reply(503)
    started = time.monotonic()
    with Client(stand_in.url, timeout=1, max_retries=100) as client, pytest.raises(ServiceUnavailableError):
        client.models()
    assert time.monotonic() - started < 1.5
    assert len(stand_in.requests) == 2


def test_a_silent_service_times_out_in_time(stand_in: StandIn) -> None:
    stand_in.reply_raw(b"", pause=5)
    started = time.monotonic()
    with Client(stand_in.url, timeout=0.5) as client, pytest.raises(APITimeoutError, match=r"within 0\.5 s"):
        client.embed(b"png")
    assert time.monotonic() - started < 1.5


def test_an_answer_that_drips_times_out_in_time(stand_in: StandIn) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    stand_in.reply_raw(head, *[b"x"] * 40, pause=0.1)
    started = time.monotonic()
    with Client(stand_in.url, timeout=0.5) as client, pytest.raises(APITimeoutError):
        client.embed(b"png")
    assert time.monotonic() - started < 1.5


def test_no_service_is_a_connection_error_that_says_how_to_start_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = time.monotonic()
    address = f"http://127.0.0.1:{port}"
    with Client(address, timeout=1) as client, pytest.raises(APIConnectionError, match="isolatent serve BUNDLE"):
        client.models()
    assert time.monotonic() - started < 1.5


def test_a_name_that_does_not_resolve_is_a_connection_error() -> None:
    with Client("http://isolatent.invalid", max_retries=0) as client, pytest.raises(APIConnectionError):
        client.models()


def test_a_dropped_connection_is_tried_again(stand_in: StandIn) -> None:
    stand_in.reply_raw(b"")
    stand_in.reply(200, embedding(1), **SAFETENSORS)
    with Client(stand_in.url) as client:
        assert client.embed(b"png").shape == (1, 2)


def test_an_answer_cut_short_is_tried_again_and_then_named(stand_in: StandIn) -> None:
    stand_in.reply_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
    with Client(stand_in.url, max_retries=1) as client, pytest.raises(APIConnectionError, match="connection broke"):
        client.embed(b"png")
    assert len(stand_in.requests) == 2


def test_something_that_is_no_http_is_a_connection_error(stand_in: StandIn) -> None:
    stand_in.reply_raw(b"SSH-2.0-OpenSSH\r\n")
    with Client(stand_in.url, max_retries=0) as client, pytest.raises(APIConnectionError):
        client.embed(b"png")


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"<html>", {"content_type": "text/html; charset=utf-8"}, "the content is text/html, expected application/x-"),
        (b"", {}, "the content is of no type"),
        (b"garbage", SAFETENSORS, "the tensors cannot be read"),
        (save({"mean": np.ones((1, 2), np.float32)}), SAFETENSORS, "the tensor 'embedding' is missing"),
        (embedding(2), SAFETENSORS, r"embedding \(2, 2\), expected 1 rows and 2 axes"),
        (b"not compressed", SAFETENSORS | {"content_encoding": "gzip"}, "the answer cannot be read"),
    ],
)
def test_an_answer_that_is_not_as_promised_is_named(
    stand_in: StandIn, body: bytes, headers: dict[str, str], reason: str
) -> None:
    stand_in.reply(200, body, x_request_id="abc", **headers)
    with Client(stand_in.url) as client, pytest.raises(APIResponseError, match=reason):
        client.embed(b"png")
    assert len(stand_in.requests) == 1


@pytest.mark.parametrize(
    ("body", "media_type", "reason"),
    [
        (b"ply\n", "text/plain", "the content is text/plain, expected model/ply"),
        (b"solid", "model/ply", "the content is no file of model/ply"),
    ],
)
def test_a_file_that_is_not_as_promised_is_named(stand_in: StandIn, body: bytes, media_type: str, reason: str) -> None:
    stand_in.reply(200, body, content_type=media_type)
    with Client(stand_in.url) as client, pytest.raises(APIResponseError, match=reason):
        client.reconstruct_file(b"ply", "ply")
    assert stand_in.requests[0][1]["Accept"] == "model/ply"


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 4, 4, 1)])
def test_reconstructions_are_points_or_pixels(stand_in: StandIn, shape: tuple[int, ...]) -> None:
    expected = np.random.default_rng(0).random(shape, np.float32)
    stand_in.reply(200, save({"reconstruction": expected, "error": np.ones(1, np.float32)}), **SAFETENSORS)
    with Client(stand_in.url) as client:
        assert np.array_equal(client.reconstruct(b"any"), expected[0])


def test_a_model_may_have_no_provider_yet(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"id": "m", "version": "1", "modality": "image", "provider": None, "ready": False, "input": {}}
    body = json.dumps({"data": [facts | {"latent": {"size": 8}}]}).encode()
    stand_in.reply(200, body, content_type="application/json")
    assert main(["models", "--url", stand_in.url]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["m", "1", "image", "8", "-", "no"]


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b"{", b'{"data": [{}]}', b'{"data": [1]}', b'{"data": [{"latent": 1}]}']
)
def test_models_that_are_not_as_promised_are_named(stand_in: StandIn, body: bytes) -> None:
    stand_in.reply(200, body, content_type="application/json")
    with Client(stand_in.url) as client, pytest.raises(APIResponseError):
        client.models()


def test_a_redirect_is_not_followed_and_says_where_to(stand_in: StandIn) -> None:
    stand_in.reply(307, location="https://elsewhere.example/v1/embeddings")
    with Client(stand_in.url) as client, pytest.raises(APIStatusError, match="redirects to https://elsewhere"):
        client.embed(b"png")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 500, 418])
def test_every_refusal_has_its_class_and_all_that_the_service_said(stand_in: StandIn, status: int) -> None:
    body = problem(code="some_code", detail="the reason")
    stand_in.reply(status, body, x_request_id="abc", retry_after="9", **PROBLEM)
    with Client(stand_in.url) as client, pytest.raises(APIStatusError) as caught:
        client.models()
    error = caught.value
    assert type(error) is status_error(status)
    assert (error.status, error.code, error.request_id, error.retry_after) == (status, "some_code", "abc", 9.0)
    assert error.url == stand_in.url + "/v1/models"
    assert str(error) == f"{status} some_code: the reason [request abc]"


def test_a_refusal_without_a_problem_document_still_has_a_message(stand_in: StandIn) -> None:
    stand_in.reply(500, b"<html>Oops", content_type="text/html")
    with Client(stand_in.url) as client, pytest.raises(InternalServerError, match="500 Internal Server Error: http"):
        client.models()


def test_a_failed_batch_names_the_input_by_its_place_among_all(stand_in: StandIn) -> None:
    stand_in.reply(200, embedding(2), **SAFETENSORS)
    body = problem(code="undecodable", detail="1 input", errors=[{"pointer": "/input/1", "detail": "broken"}, 7])
    stand_in.reply(422, body, **PROBLEM)
    with Client(stand_in.url) as client, pytest.raises(UnprocessableInputError) as caught:
        client.embed([b"a", b"b", b"c", io.BytesIO(b"d")], batch_size=2, concurrency=1)
    (error,) = caught.value.errors
    assert (error.index, error.name, error.detail) == (3, "input 3", "broken")
    assert "input 3: broken" in str(caught.value)
    assert caught.value.inputs == ("input 2", "input 3")


def test_a_batch_lost_on_the_way_names_its_inputs(stand_in: StandIn) -> None:
    stand_in.reply(200, embedding(2), **SAFETENSORS)
    stand_in.reply_raw(b"")
    with Client(stand_in.url, max_retries=0) as client, pytest.raises(APIConnectionError) as caught:
        client.embed([b"a", b"b", b"c", b"d"], batch_size=2, concurrency=1)
    assert "with input 2 to input 3: the connection broke" in str(caught.value)


def test_a_refusal_of_a_whole_batch_names_its_inputs_and_one_of_the_options_does_not(stand_in: StandIn) -> None:
    stand_in.reply(413, problem(code="too_many_bytes", detail="9 bytes, the limit is 8"), **PROBLEM)
    stand_in.reply(404, problem(code="model_not_found", detail="no model"), **PROBLEM)
    with Client(stand_in.url) as client:
        with pytest.raises(APIStatusError, match=r"the limit is 8; in a request with input 0 to input 1$"):
            client.embed([b"a", b"b"])
        with pytest.raises(APIStatusError, match=r"no model$"):
            client.embed([b"a", b"b"])


def test_many_bad_inputs_are_counted_and_three_are_named(stand_in: StandIn) -> None:
    errors = [{"pointer": f"/input/{index}", "detail": "broken"} for index in range(5)]
    stand_in.reply(422, problem(code="undecodable", errors=errors), **PROBLEM)
    with Client(stand_in.url) as client, pytest.raises(UnprocessableInputError) as caught:
        client.embed([b"a"] * 5)
    named = "; ".join(f"input {index}: broken" for index in range(3))
    assert str(caught.value) == f"422 undecodable: {named}; and 2 more inputs"


def test_one_connection_serves_many_requests(stand_in: StandIn) -> None:
    stand_in.reply(200, embedding(1), **SAFETENSORS)
    with Client(stand_in.url) as client:
        client.embed(PICTURES, batch_size=1, concurrency=1)
    assert len(stand_in.requests) == 3
    assert stand_in.connections == 1


def test_one_connection_outlives_refusals(stand_in: StandIn) -> None:
    stand_in.reply(503, b"later", retry_after="0")
    stand_in.reply(422, b"no")
    with Client(stand_in.url) as client, pytest.raises(UnprocessableInputError):
        client.embed(b"png")
    assert (len(stand_in.requests), stand_in.connections) == (2, 1)


def test_an_http_client_passed_in_is_used_and_left_open(stand_in: StandIn) -> None:
    stand_in.reply(200, embedding(1), **SAFETENSORS)
    with httpx2.Client(headers={"X-Mine": "yes"}) as mine:
        with Client(stand_in.url, http_client=mine) as client:
            client.embed(b"png")
        assert not mine.is_closed
    assert stand_in.requests[0][1]["X-Mine"] == "yes"


def test_requests_carry_the_key_and_the_user_agent(stand_in: StandIn) -> None:
    stand_in.reply(200, embedding(1), **SAFETENSORS)
    with Client(stand_in.url, api_key="top-secret") as client:
        client.embed(b"png", model="a b&c")
    path, headers, _ = stand_in.requests[0]
    assert path == "/v1/embeddings?model=a+b%26c"
    assert headers["Authorization"] == "Bearer top-secret"
    assert headers["User-Agent"].startswith("isolatent/0.1.0 python/3")
    assert headers["Accept"] == "application/x-safetensors"


def test_the_key_is_in_no_representation_log_line_or_error(stand_in: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    stand_in.reply(503, retry_after="0")
    with caplog.at_level(logging.DEBUG), Client(stand_in.url, api_key="top-secret") as client:
        with pytest.raises(ServiceUnavailableError) as caught:
            client.embed(b"png")
        shown = repr(client) + repr(client._options) + caplog.text + str(caught.value) + repr(caught.value.__dict__)
    assert stand_in.requests[0][1]["Authorization"] == "Bearer top-secret"
    assert "top-secret" not in shown


def test_every_request_is_a_debug_line_and_every_retry_an_info_line(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.reply(503, retry_after="0")
    stand_in.reply(200, embedding(1), **SAFETENSORS)
    with caplog.at_level(logging.DEBUG, "isolatent"), Client(stand_in.url) as client:
        client.embed(b"png")
    levels = [record.levelname for record in caplog.records if record.name == "isolatent"]
    assert levels == ["DEBUG", "INFO", "DEBUG"]


def test_ready_is_false_while_the_service_starts_and_does_not_wait(stand_in: StandIn) -> None:
    stand_in.reply(503, retry_after="5")
    with Client(stand_in.url) as client:
        assert client.ready() is False
    assert len(stand_in.requests) == 1


def test_every_error_of_a_call_carries_a_request_id(stand_in: StandIn, unused_url: str) -> None:
    stand_in.reply(500, b"<html>Oops")
    stand_in.reply(200, b"<html>Hello")
    stand_in.reply_raw(b"")
    with Client(stand_in.url, max_retries=0) as client:
        for kind in (InternalServerError, APIResponseError, APIConnectionError):
            with pytest.raises(kind) as caught:
                client.embed(b"png")
            assert caught.value.request_id == stand_in.requests[-1][1]["X-Request-Id"]
    with Client(unused_url, max_retries=0) as client, pytest.raises(APIConnectionError) as lost:
        client.embed(b"png")
    assert lost.value.request_id
    assert lost.value.indices == (0,)


def test_all_attempts_of_a_call_have_one_request_id_and_calls_have_their_own(stand_in: StandIn) -> None:
    stand_in.reply(503, retry_after="0")
    stand_in.reply(200, embedding(1), **SAFETENSORS)
    with Client(stand_in.url) as client:
        client.embed(b"png")
        client.embed(b"png")
    first, again, other = [headers["X-Request-Id"] for _, headers, _ in stand_in.requests]
    assert first == again != other
