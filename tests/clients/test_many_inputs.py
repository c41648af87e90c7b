"""Many inputs at once: order, bounds, failures in the middle, errors in place, progress."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save

from isolatent import (
    APITimeoutError,
    AuthenticationError,
    Client,
    InputError,
    InternalServerError,
    IsolatentError,
    Posterior,
    UnprocessableInputError,
    _progress,
)

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

    from conftest import StandIn

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture
def numbers() -> Pixels:
    """400 pictures (400, 2, 2); all pixels of one are its place, modulo 200."""
    return np.repeat(np.arange(400, dtype=np.int64) % 200, 4).astype(np.uint8).reshape(400, 2, 2)


class Mirror:
    """Answers with the first pixel of every picture, after a pause; notes how many requests there were at once."""

    def __init__(self, stand_in: StandIn, pause: float = 0.0) -> None:
        self.most, self._now, self._pause = 0, 0, pause
        self._lock, self._script = threading.Lock(), stand_in
        stand_in.replies.append(self)

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self._pause * (1 + self._now % 3))  # later requests may be answered first
        with self._lock:
            self._now -= 1
        body = self._body(handler)
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-safetensors")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _body(self, handler: BaseHTTPRequestHandler) -> bytes:
        pixels = np.load(io.BytesIO(sent(self._script, handler)))
        return save({"embedding": pixels[:, 0, :1].astype(np.float32)})


def sent(stand_in: StandIn, handler: BaseHTTPRequestHandler) -> bytes:
    """The body of the request that is being answered."""
    name = handler.headers["X-Request-Id"]
    return next(body for _, headers, body in stand_in.requests if headers["X-Request-Id"] == name)


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_results_are_in_order_and_requests_at_once_are_bounded(
    stand_in: StandIn, numbers: Pixels, concurrency: int
) -> None:
    mirror = Mirror(stand_in, pause=0.005)
    with Client(stand_in.url) as client:
        rows = client.embed(iter(numbers), batch_size=10, concurrency=concurrency)
    assert np.array_equal(rows[:, 0], numbers[:, 0, 0])
    assert mirror.most <= concurrency
    assert mirror.most > 1 or concurrency == 1


def test_there_are_as_many_connections_as_requests_at_once_and_they_are_kept(
    stand_in: StandIn, numbers: Pixels
) -> None:
    Mirror(stand_in, pause=0.05)
    with Client(stand_in.url) as client:
        for _ in range(2):
            client.embed(numbers, batch_size=10, concurrency=40)
    assert len(stand_in.requests) == 80
    assert 20 < stand_in.connections <= 40


def test_a_generator_is_read_no_further_than_twice_the_concurrency(stand_in: StandIn, numbers: Pixels) -> None:
    Mirror(stand_in)
    read: list[int] = []

    def endless() -> Iterator[Pixels]:
        while True:
            read.append(len(read))
            yield numbers[len(read) % 100]

    with Client(stand_in.url) as client:
        results = client.iter_embeddings(endless(), batch_size=5, concurrency=3)
        assert [next(results)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
        assert len(read) == 2 * 3 * 5
        assert [next(results)[0] for _ in range(6)] == [5, 6, 7, 8, 9, 10]
        assert len(read) == 2 * 3 * 5 + 10
        results.close()  # type: ignore[attr-defined]


def test_nothing_is_read_before_the_first_result_is_asked_for(client: Client) -> None:
    def broken() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    client.iter_posteriors(broken())


def test_iterators_give_places_and_the_results_of_the_other_methods(client: Client, pngs: list[Path]) -> None:
    pairs = list(client.iter_posteriors(iter(pngs), batch_size=2))
    assert [index for index, _ in pairs] == list(range(7))
    for (_, posterior), path in zip(pairs, pngs, strict=True):
        np.testing.assert_allclose(posterior.mean, client.posterior(path).mean, atol=1e-5)
    for index, row in client.iter_embeddings(pngs):
        np.testing.assert_allclose(row, pairs[index][1].mean, atol=1e-5)
        assert row.flags.writeable
    kept = client.reconstructions(pngs, batch_size=3)
    assert kept.shape == (7, 16, 16, 1)
    for index, picture in client.iter_reconstructions(pngs, batch_size=2):
        np.testing.assert_allclose(picture, kept[index], atol=1e-5)


def test_results_before_a_source_that_breaks_are_given(client: Client, pngs: list[Path]) -> None:
    def source() -> Iterator[Path]:
        yield from pngs[:3]
        raise KeyError("the source broke")

    results = client.iter_posteriors(source(), batch_size=2)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="the source broke"):
        next(results)


def test_the_first_failure_ends_the_rest_and_names_its_inputs(stand_in: StandIn) -> None:
    body = json.dumps({"code": "internal", "detail": "it failed"}).encode()
    stand_in.reply(500, body, content_type="application/problem+json", x_request_id="abc")
    with Client(stand_in.url) as client, pytest.raises(InternalServerError) as caught:
        client.embed((b"png" for _ in range(1000)), batch_size=2, concurrency=3)
    assert (caught.value.inputs, caught.value.indices) == (("input 0", "input 1"), (0, 1))
    assert caught.value.request_id == "abc"
    assert "in a request with input 0 to input 1" in str(caught.value)
    assert len(stand_in.requests) <= 2 * 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("isolatent")]


def test_an_input_that_cannot_be_sent_names_its_place(client: Client, pngs: list[Path]) -> None:
    with pytest.raises(InputError, match=r"input 4: no file 'missing\.png'") as caught:
        client.embed([*pngs[:4], "missing.png"], batch_size=2)
    assert (caught.value.inputs, caught.value.indices) == (("missing.png",), (4,))


def test_errors_come_in_the_place_of_their_inputs(client: Client, pngs: list[Path]) -> None:
    inputs = [pngs[0], b"no picture", np.zeros((9, 9), np.uint8), "missing.png", 7, *pngs[1:]]
    results = list(client.iter_posteriors(inputs, batch_size=4, on_error="item"))  # type: ignore[arg-type]
    assert [index for index, _ in results] == list(range(11))
    kinds = [type(result) for _, result in results]
    assert kinds == [Posterior, *[UnprocessableInputError] * 2, *[InputError] * 2, *[Posterior] * 6]
    undecodable, wrong_shape = results[1][1], results[2][1]
    assert isinstance(undecodable, UnprocessableInputError)
    assert isinstance(wrong_shape, UnprocessableInputError)
    assert (undecodable.code, undecodable.indices, undecodable.errors[0].index) == ("undecodable", (1,), 1)
    assert undecodable.request_id
    assert "422 undecodable: input 1: not an image" in str(undecodable)
    assert wrong_shape.code == "wrong_shape"
    after = results[5][1]
    assert isinstance(after, Posterior)
    np.testing.assert_allclose(after.mean, client.posterior(pngs[1]).mean, atol=1e-5)


def test_what_a_refused_request_says_about_single_inputs_spares_the_others(stand_in: StandIn) -> None:
    problem = {"code": "undecodable", "detail": "1 bad", "errors": [{"pointer": "/input/1", "detail": "broken"}]}
    stand_in.reply(422, json.dumps(problem).encode(), content_type="application/problem+json")
    stand_in.reply(200, save({"embedding": np.ones((2, 3), np.float32)}), content_type="application/x-safetensors")
    with Client(stand_in.url) as client:
        results = dict(client.iter_embeddings([b"a", b"b", b"c"], on_error="item"))
    assert [isinstance(results[index], IsolatentError) for index in range(3)] == [False, True, False]
    assert len(stand_in.requests) == 2
    assert "on_error=item" in stand_in.requests[0][0]


def test_a_request_that_fails_for_good_fails_its_inputs_and_the_others_go_on(stand_in: StandIn) -> None:
    stand_in.reply(500)
    stand_in.reply(200, save({"embedding": np.ones((2, 3), np.float32)}), content_type="application/x-safetensors")
    with Client(stand_in.url) as client:
        inputs = [b"a", b"b", b"c", b"d"]
        results = [each for _, each in client.iter_embeddings(inputs, batch_size=2, concurrency=1, on_error="item")]
    assert [type(result) for result in results[:2]] == [InternalServerError] * 2
    assert [result.shape for result in results[2:]] == [(3,)] * 2  # type: ignore[union-attr]


def test_what_every_input_would_get_is_raised_all_the_same(stand_in: StandIn) -> None:
    stand_in.reply(401)
    with Client(stand_in.url) as client, pytest.raises(AuthenticationError):
        list(client.iter_embeddings([b"a"] * 100, on_error="item", batch_size=2))
    assert len(stand_in.requests) <= 8


def test_leaving_an_iterator_ends_the_waits_of_its_other_requests(stand_in: StandIn) -> None:
    answer = save({"embedding": np.ones((1, 3), np.float32)})

    def first_only(handler: BaseHTTPRequestHandler) -> None:
        good = b"first" in sent(stand_in, handler)
        handler.send_response(200 if good else 503)
        for name, value in {"Content-Type": "application/x-safetensors", "Retry-After": "40"}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    stand_in.replies.append(first_only)
    started = time.monotonic()
    with Client(stand_in.url, timeout=100) as client:
        for _ in client.iter_embeddings([b"first", b"b", b"c", b"d"], batch_size=1):
            time.sleep(0.5)  # the others are told to wait
            break
    assert len(stand_in.requests) == 4
    assert time.monotonic() - started < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("isolatent")]


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"concurrency": 0}, {"on_error": "skip"}])
def test_options_that_make_no_sense_are_refused_at_once(client: Client, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=rf"{name}=.*, expected"):
        client.iter_posteriors([], **options)


def test_progress_is_told_to_a_function(client: Client, pngs: list[Path]) -> None:
    told: list[tuple[int, int | None]] = []
    client.embed(pngs, batch_size=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 7), (6, 7), (7, 7)]
    told.clear()
    client.posteriors(iter(pngs), batch_size=4, progress=lambda done, total: told.append((done, total)))
    assert told == [(4, None), (7, None)]


def test_progress_is_a_line_on_stderr(client: Client, pngs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    client.embed(pngs, progress=True)
    assert re.fullmatch(r"7 of 7 inputs, \d+/s\n", capsys.readouterr().err)
    client.embed(iter(pngs), progress=True)
    assert re.fullmatch(r"7 inputs, \d+/s\n", capsys.readouterr().err)
    client.embed(pngs)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_the_line_is_written_over_itself(
    client: Client, pngs: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(_progress, "_EVERY", 0.0)
    client.embed(pngs, batch_size=4, progress=True)
    first, *_, last = capsys.readouterr().err.split("\r")[1:]
    assert re.fullmatch(r"4 of 7 inputs, \d+/s, \d+ s left *", first)
    assert re.fullmatch(r"7 of 7 inputs, \d+/s *\n", last)


def test_a_function_that_breaks_ends_the_call(client: Client, pngs: list[Path]) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        client.embed(pngs, batch_size=1, progress=broken)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("isolatent")]


def test_latents_come_from_a_generator_too(client: Client) -> None:
    latents = np.random.default_rng(0).normal(size=(7, 8)).astype(np.float32)
    np.testing.assert_allclose(client.decode(iter(latents), batch_size=2), client.decode(latents), atol=1e-5)
    with pytest.raises(InputError, match="latent 1 has 7 numbers, latent 0 8"):
        client.decode(iter([np.zeros(8), np.zeros(7)]))
    with pytest.raises(InputError, match="latent 0 is an array of several"):
        client.decode(iter([latents]))
    assert client.decode(iter([])).shape == (0, 16, 16, 1)


def test_a_timeout_is_of_its_inputs_alone(stand_in: StandIn) -> None:
    stand_in.reply_raw(b"", pause=2)
    with Client(stand_in.url, timeout=0.3) as client:
        results = list(client.iter_embeddings([b"a", b"b"], on_error="item"))
    assert [type(error) for _, error in results] == [APITimeoutError] * 2
