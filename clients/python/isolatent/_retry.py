"""When to try again, how long to wait, when to give up. No I/O: the clients send and sleep.

All attempts and waits of one request fit into its timeout. Repeating one is safe: results are deterministic, a job has
its key, and what is deleted stays deleted. A repeated upload may leave a second copy with the service, which expires.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx2

from isolatent._errors import APIConnectionError, APIStatusError, APITimeoutError, IsolatentError

RETRIED_STATUS = frozenset({408, 429, 502, 503, 504})
BACKOFF, BACKOFF_CAP = 0.5, 8.0
RETRY_AFTER_CAP = 60.0
"""A service that wants a longer pause, in seconds, is given up at once."""
_LEAST = 0.001


class TimeLeft(float):
    """Seconds until a deadline, never quite 0, as any transport takes them; `now` gives those that are left later."""

    now: Callable[[], float]

    def __new__(cls, now: Callable[[], float]) -> Self:
        """Those that are left already."""
        self = super().__new__(cls, max(now(), _LEAST))
        self.now = now
        return self


class Attempts:
    """The attempts of one request: `time_left` before each, `wait_after` its failure."""

    def __init__(
        self,
        *,
        timeout: float,
        max_retries: int,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.made = 0
        self._max_retries = max_retries
        self._clock = clock
        self._jitter = jitter
        self._timeout = timeout
        self._deadline = clock() + timeout

    def time_left(self) -> TimeLeft:
        """Seconds until the deadline; never quite 0, which a transport would take as a value of its own."""
        return TimeLeft(lambda: self._deadline - self._clock())

    def renew(self, *, further: bool = False) -> None:
        """Count the time anew: a piece of a long transfer has gone. `further` also forgets the attempts so far."""
        self._deadline = self._clock() + self._timeout
        if further:
            self.made = 0

    def extensions(self) -> dict[str, Any]:
        """httpx2 request extensions that hold every step of one attempt (connect, send, receive) to the deadline."""
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self.time_left())

        def tighten(_event: str, _info: dict[str, Any]) -> None:
            limits.update(dict.fromkeys(limits, self.time_left()))

        return {"timeout": limits, "trace": tighten}

    def within(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks of an answer's body. Raises httpx2.ReadTimeout when one comes after the deadline."""
        for chunk in chunks:
            yield chunk
            if self._clock() >= self._deadline:
                raise httpx2.ReadTimeout("the answer comes too slowly")

    def wait_after(self, error: IsolatentError) -> float | None:
        """Seconds to wait before the next attempt, None when there is to be none."""
        self.made += 1
        if self.made > self._max_retries or not _is_passing(error):
            return None
        wait = error.retry_after if isinstance(error, APIStatusError) else None
        if wait is None:
            wait = self._backoff()
        return wait if wait <= RETRY_AFTER_CAP and wait < self.time_left() else None

    def _backoff(self) -> float:
        """0.5 s, 1 s, 2 s ... up to 8 s, less up to a quarter so that clients do not come back in step."""
        return min(BACKOFF * 2.0 ** (self.made - 1), BACKOFF_CAP) * (1 - self._jitter() / 4)


def _is_passing(error: IsolatentError) -> bool:
    if isinstance(error, APIStatusError):
        return error.status in RETRIED_STATUS
    return isinstance(error, APIConnectionError) and not isinstance(error, APITimeoutError)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; None when it says neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # whatever the parser meets in a header from outside
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max((date - (now or datetime.now(UTC))).total_seconds(), 0.0)
