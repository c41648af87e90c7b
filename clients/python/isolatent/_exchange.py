"""One request with all its attempts. No I/O: a client sends and waits, and learns here what to send and how long."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from typing import Any

import httpx2

from isolatent import __version__, _answers, _wire
from isolatent._answers import Answer
from isolatent._backends import Dialect
from isolatent._errors import APITimeoutError, IsolatentError
from isolatent._options import Options
from isolatent._retry import Attempts

logger = logging.getLogger("isolatent")

_LOST = frozenset({502, 504})
"""Statuses of a proxy that got no answer from the service behind it, which may have done what it was asked."""


class Exchange:
    """A call to a service: `request` before each attempt, `answered` or `broken` after it, `wait_after` a failure.

    All attempts have one X-Request-Id, so that errors without an answer carry the name that is in the service's log.
    """

    def __init__(self, call: _wire.Call, dialect: Dialect, options: Options, max_retries: int | None = None) -> None:
        options = options if call.timeout is None else replace(options, timeout=call.timeout)
        retries = options.max_retries if max_retries is None else max_retries
        self.attempts = Attempts(timeout=options.timeout, max_retries=retries)
        self._call = replace(call, request_id=os.urandom(16).hex())
        self._dialect, self._options = dialect, options
        self._sent = dialect.request(self._call)
        self._url = options.base_url + self._sent.path
        self._started = 0.0
        self._is_perhaps_done = False

    def request(self) -> dict[str, Any]:
        """What to send, as keywords of httpx2's `build_request`."""
        self._started = time.monotonic()
        headers = {
            "User-Agent": _wire.user_agent(__version__),
            "X-Request-Id": self._call.request_id,
            "Accept": self._sent.accept,
        }
        return {
            "method": self._sent.method,
            "url": self._url,
            "params": self._sent.params,
            "headers": headers | self._options.authorization | self._sent.headers,
            "content": self._sent.content,
            "files": list(self._sent.parts) or None,
        }

    def answered(self, status: int, headers: httpx2.Headers, content: bytes) -> Answer | IsolatentError:
        """The yes, or the error for a no."""
        answer = self._dialect.answer(Answer(self._url, status, headers, content, self._call.request_id), self._call)
        seconds = time.monotonic() - self._started
        what = self._sent.method, self._url, answer.status, seconds, answer.request_id or self._call.request_id
        logger.debug("%s %s: %d in %.3f s, request %s", *what)
        if answer.is_success or (answer.status == 404 and self._call.method == "DELETE" and self._is_perhaps_done):
            return answer  # what is to be deleted is gone: an earlier attempt has done it, and its answer was lost
        self._is_perhaps_done |= answer.status in _LOST
        return _answers.refusal(answer, self._call)

    def broken(self, error: httpx2.RequestError) -> IsolatentError:
        """The error for an attempt without an answer."""
        self._is_perhaps_done |= not isinstance(error, httpx2.ConnectError)
        return _answers.no_answer(error, self._url, self._options.timeout, self._call)

    def late(self) -> APITimeoutError:
        """The error for an attempt that used up the time of all of them."""
        return _answers.out_of_time(self._url, self._options.timeout, self._call)

    def wait_after(self, error: IsolatentError) -> float:
        """Seconds until the next attempt. Raises `error` when there is to be none."""
        seconds = self.attempts.wait_after(error)
        if seconds is None:
            raise error
        logger.info("%s %s: trying again in %.2f s after: %s", self._sent.method, self._url, seconds, error)
        return seconds
