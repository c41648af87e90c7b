"""The decision to try again, without a service or a clock."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx2
import pytest

from isolatent import APIConnectionError, APITimeoutError, InputError, IsolatentError
from isolatent._errors import status_error
from isolatent._retry import Attempts, retry_after

DROPPED = APIConnectionError("dropped", url="u")


def refused(status: int, after: float | None = None) -> IsolatentError:
    return status_error(status)("no", status=status, url="u", retry_after=after)


def attempts(timeout: float = 1000, max_retries: int = 10, now: list[float] | None = None) -> Attempts:
    return Attempts(timeout=timeout, max_retries=max_retries, clock=lambda: (now or [0.0])[0], jitter=lambda: 0.0)


def test_waits_double_from_half_a_second_to_eight() -> None:
    policy = attempts()
    assert [policy.wait_after(DROPPED) for _ in range(7)] == [0.5, 1, 2, 4, 8, 8, 8]


def test_jitter_takes_off_up_to_a_quarter() -> None:
    policy = Attempts(timeout=1000, max_retries=2, jitter=lambda: 1.0)
    assert policy.wait_after(DROPPED) == 0.375


def test_there_are_as_many_retries_as_asked_for() -> None:
    policy = attempts(max_retries=2)
    assert [policy.wait_after(DROPPED) is None for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_status_that_may_pass_is_tried_again(status: int) -> None:
    assert attempts().wait_after(refused(status)) == 0.5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500, 501])
def test_a_status_that_will_stay_is_not(status: int) -> None:
    assert attempts().wait_after(refused(status)) is None


@pytest.mark.parametrize("error", [APITimeoutError("late", url="u"), InputError("bad"), IsolatentError("other")])
def test_lack_of_time_and_bad_inputs_are_not_tried_again(error: IsolatentError) -> None:
    assert attempts().wait_after(error) is None


def test_the_service_decides_the_wait_unless_it_asks_too_much() -> None:
    assert attempts().wait_after(refused(503, after=7.0)) == 7.0
    assert attempts().wait_after(refused(503, after=61.0)) is None


def test_a_wait_beyond_the_deadline_is_given_up_at_once() -> None:
    now = [0.0]
    policy = attempts(timeout=10, now=now)
    now[0] = 6.0
    assert policy.time_left() == 4.0
    assert policy.wait_after(refused(503, after=5.0)) is None
    assert policy.wait_after(refused(503, after=3.0)) == 3.0


def test_every_step_of_an_attempt_gets_only_the_time_left() -> None:
    now = [0.0]
    extensions = attempts(timeout=10, now=now).extensions()
    now[0] = 4.0
    extensions["trace"]("http11.receive_response_headers.started", {})
    assert extensions["timeout"] == {"connect": 6.0, "read": 6.0, "write": 6.0, "pool": 6.0}


def test_a_body_that_outlasts_the_deadline_is_cut_off() -> None:
    now = [0.0]
    chunks = attempts(timeout=10, now=now).within([b"a", b"b"])
    assert next(chunks) == b"a"
    now[0] = 10.0
    with pytest.raises(httpx2.ReadTimeout):
        next(chunks)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0), (" 0 ", 0.0), ("1.5", 1.5), (None, None), ("", None), ("soon", None), ("-3", None), ("²", None),
        ("Sun, 22 Nov 2026 12:00:05 GMT", 5.0), ("Sun, 22 Nov 2026 11:59:00 GMT", 0.0),
        ("Sun, 22 Nov 2026 12:00:05 -0000", 5.0), ("Sun, 99 Nov 2026 12:00:05 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=datetime(2026, 11, 22, 12, tzinfo=UTC)) == seconds
