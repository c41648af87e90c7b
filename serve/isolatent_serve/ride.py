"""One request in the lane: from its acceptance to the last byte of its answer, without a task of its own.

Everything happens on the thread of the event loop, in calls from the connection, the engine and the lane.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from isolatent_serve import access, answers, bodies, logs, problems
from isolatent_serve.batching import Job
from isolatent_serve.outputs import Tensors
from isolatent_serve.problems import Problem
from isolatent_serve.question import Question
from isolatent_serve.service import Service

error_log = logging.getLogger("isolatent_serve.errors")


class Road(Protocol):
    """The connection, as a ride needs it."""

    transport: asyncio.Transport

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of every answer: the date."""

    def on_response_complete(self) -> None:
        """An answer is written: the next request may be."""


class Ride:
    """A request whose body is there. uvicorn takes it for one of its own: that is what the first attributes are for."""

    def __init__(
        self,
        service: Service,
        road: Road,
        path: str,
        state: dict[str, Any],
        began: float,
        since: float,
        over: Callable[[Ride], None],
    ) -> None:
        """`state` is what the log says of it, as `request.state` elsewhere; `over` is called at the end.

        Its deadline counts from `began`, when its body was there, and the time that it took `since` its head was.
        """
        self.response_started = False
        self.response_complete = False
        self.keep_alive = True
        self.disconnected = False
        self._began = began
        self._since = since
        self._state = state
        self._service = service
        self._road = road
        self._path = path
        self._over = over
        self._question: Question | None = None
        self._job: Job | None = None

    @property
    def message_event(self) -> Ride:
        """Uvicorn sets it when the client has left."""
        return self

    def set(self) -> None:
        """Drop the request when its client has left."""
        if self.disconnected and not self.response_complete:
            self.response_complete = True
            self._end(access.CLIENT_LEFT)

    def start(self, question: Question) -> None:
        """Let the engine compute it, or refuse it."""
        model = question.model
        self._question = question
        self._state["model"], self._state["inputs"] = model.manifest.name, question.decoded.count
        try:
            compute = question.output.prepare(model.bundle, question.options.samples)
            self._job = model.engine.submit(compute, question.decoded.array, self._answer)
        except Exception as error:
            self._fail(error)

    def expire(self) -> bool:
        """Refuse it when its deadline has passed; returns whether it has."""
        limits = self._service.settings.limits
        late = time.perf_counter() - self._began > limits.deadline_seconds
        if late:
            self.refuse(bodies.too_late(limits))
        return late

    def refuse(self, problem: Problem) -> None:
        """Answer with `problem`."""
        self._state["code"] = problem.code
        body, media_type = problems.write(problem, self._path, self._state["request_id"])
        own = ((name.lower().encode(), value.encode()) for name, value in problem.headers.items())
        self._send(problem.status, own, body, media_type)

    def _answer(self, outcome: Tensors | Exception) -> None:
        """The engine is done with it."""
        try:
            if isinstance(outcome, Exception):
                raise outcome
            if not self.expire():
                self._write(outcome)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, Problem):
            self.refuse(error)
            return
        error_log.error("request %s failed", self._state["request_id"], exc_info=error)
        if not self.response_complete:
            self.refuse(Problem("internal", access.APOLOGY))

    def _write(self, computed: Tensors) -> None:
        assert self._question
        began = time.perf_counter()
        media_type = self._question.media_type
        body = answers.content(self._question.answer(computed), media_type)
        self._service.metrics.stage("write", time.perf_counter() - began)
        self._send(200, (), body, media_type)

    def _send(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, media_type: str) -> None:
        lines = [STATUS_LINE[status]]
        for name, value in (*self._road.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines += (b"content-length: %d\r\ncontent-type: " % len(body), media_type.encode(), b"\r\n")
        lines += (access.RAW_HEADER, b": ", self._state["request_id"].encode(), b"\r\n")
        lines += (b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n", body)
        self._road.transport.write(b"".join(lines))
        self.response_started = self.response_complete = True
        if not self.keep_alive:
            self._road.transport.close()
        self._end(status)
        self._road.on_response_complete()

    def _end(self, status: int) -> None:
        if self._job and self._question:
            self._question.model.engine.drop(self._job)
            self._job = None  # which knows this: no cycles are left to the garbage collector
        self._over(self)
        token = logs.current_request.set(self._state["request_id"])
        seconds = time.perf_counter() - self._since
        access.note(self._service.metrics, "POST", self._path, self._path, status, seconds, self._state)
        logs.current_request.reset(token)
