"""The connections of one process: how many there may be, and how long each may take over what it does.

uvicorn bounds idle connections only. Here a client that does not finish the head of its request, or does not take its
answer, loses its connection as well (for bodies see bodies.py); and when there are too many connections, those that ask
for nothing make room.
"""

from __future__ import annotations

import asyncio
import http
import resource
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any
from uuid import uuid4

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from isolatent_serve.lane import Entry, Lane
from isolatent_serve.peers import Peers
from isolatent_serve.problems import Problem, write
from isolatent_serve.ride import Ride
from isolatent_serve.settings import Settings

HEAD_BYTES = 64 * 2**10
"""Longest head of a request, about."""
ANSWER_BYTES_PER_SECOND = 256 * 2**10
"""How fast a client must take its answer, beyond the time that each may take."""
YIELDING_SECONDS = 1.0
"""A connection that has asked for nothing for so long makes room for another."""

LANE_SECONDS = 0.25
"""What a body may take in the lane, about."""

_SPARE_CONNECTIONS = 64
"""Connections above the limit that are told so, rather than closed without a word."""
_OTHER_FILES = 128
"""Open files that a process needs for other things than connections."""


class Connections(ServerState):
    """The connections of one process; uvicorn keeps them here. `refused` hears the code of each refusal."""

    def __init__(
        self, settings: Settings, peers: Peers, refused: Callable[[str], None], lane: Lane | None = None
    ) -> None:
        super().__init__()
        self.head_seconds = settings.limits.head_seconds
        self.answer_seconds = settings.limits.answer_seconds
        self.keep_alive_seconds = settings.keep_alive_seconds
        self.refused = refused
        self.lane = lane
        self.arriving = 0
        """Accepted, and not yet among the connections."""
        self._limit = min(settings.max_connections, _possible_connections())
        self._peers = peers

    def __iter__(self) -> Iterator[Connection]:
        return (each for each in tuple(self.connections) if isinstance(each, Connection))

    def count(self) -> None:
        """Tell the other processes how many there are."""
        self._peers.connections = len(self.connections) + self.arriving

    def inspect(self) -> None:
        """Close what has taken too long. To be called again and again."""
        now = asyncio.get_running_loop().time()
        for connection in self:
            connection.inspect(now)

    def abort(self) -> None:
        """Close all, whatever they are at."""
        for connection in self:
            connection.transport.abort()

    def make_room(self, newcomer: Connection) -> None:
        """Close the connection that has asked for nothing for longest, or else let the newcomer know."""
        if len(self.connections) <= self._limit:
            return
        latest = newcomer.loop.time() - YIELDING_SECONDS
        waiting = [(since, each.transport) for each in self if (since := each.waits_since) and since < latest]
        if waiting:
            min(waiting, key=itemgetter(0))[1].close()
        elif len(self.connections) <= self._limit + _SPARE_CONNECTIONS:
            newcomer.is_one_too_many = True
        else:
            newcomer.transport.abort()


class Connection(HttpToolsProtocol):
    """One connection, as uvicorn has it, that knows what it waits for and since when."""

    def __init__(
        self, config: Config, server_state: Connections, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.is_one_too_many = False
        self._all = server_state
        self._since: float | None = _loop.time()  # None while a request is being answered
        self._in_head = False
        self._head_bytes = 0
        self._ends_one = False  # whether what is being parsed has the end of another request before the head
        self._unsent = 0
        self._send_by = 0.0
        self._answered: RequestResponseCycle | Ride | None = None  # others may wait behind it in the pipeline
        self._entry: Entry | None = None  # a request in the lane, whose body is arriving
        self._body = b""
        self._entered = 0.0

    @property
    def waits_since(self) -> float | None:
        """When it began to wait for a request, or for the rest of its head; None while it is at work or closing."""
        at_work = self.cycle is not None and not self.cycle.response_complete
        return None if at_work or self.transport.is_closing() else self._since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Count it, and make room when there are too many."""
        super().connection_made(transport)
        self._all.make_room(self)
        self._all.count()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out, and tell the request that is being answered; uvicorn tells only the one that came last."""
        if self._entry and self._all.lane:
            self._leave_lane(self._all.lane, self._entry)
        if self._answered and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)
        self._all.count()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of every answer: the date."""
        return self._all.default_headers

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        self._ends_one = False
        super().data_received(data)
        if self._in_head and not self._ends_one:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(Problem("head_too_large", f"send a head of less than {HEAD_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._since = self.loop.time()

    def on_headers_complete(self) -> None:
        """A head is there: from here on the application watches the time."""
        self._in_head = False
        self._since = None
        self.scope["state"]["one_too_many"] = self.is_one_too_many
        self._entry = self._enter_lane()
        if self._entry:
            self._entered = self.loop.time()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body is here."""
        if self._entry:
            self._body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is here."""
        self._ends_one = True
        if self._entry is None or self._all.lane is None:
            super().on_message_complete()
        elif ride := self._all.lane.take(self, self._entry, self._body):
            self.cycle = ride  # type: ignore[assignment]  # it has what uvicorn asks of it
            self._answered = ride
            self._entry, self._body = None, b""
        else:
            self._leave_lane(self._all.lane, self._entry)
            super().on_message_complete()

    def _enter_lane(self) -> Entry | None:
        """The request, when the lane takes it: not behind another one, nor when answers pile up."""
        lane = self._all.lane
        if lane is None or self.is_one_too_many or self.flow.write_paused or not self.parser.should_keep_alive():
            return None
        at_work = self.cycle is not None and not self.cycle.response_complete
        is_plain = self.parser.get_method() == b"POST" and self.parser.get_http_version() == "1.1"
        return lane.enter(self.url, self.headers) if is_plain and not at_work else None

    def _leave_lane(self, lane: Lane, entry: Entry) -> None:
        """Go the normal way, as far as the request has come; it was accepted at its head, whatever has begun since."""
        body, self._entry, self._body = self._body, None, b""
        self.scope["state"]["accepted"] = True
        super().on_headers_complete()
        self.loop.call_soon(lane.leave, entry)  # when the task has begun, which counts itself
        if body:
            super().on_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        if not self._in_head:
            self._since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """What uvicorn says about bytes that are no HTTP, as a problem."""
        self._refuse(Problem("malformed_http", "send a request of HTTP/1.1, and one request at a time"))

    def inspect(self, now: float) -> None:
        """Close it when the client has taken too long; a body that does is waited for elsewhere than in the lane."""
        if self._entry and self._all.lane and now - self._entered > LANE_SECONDS:
            self._leave_lane(self._all.lane, self._entry)
        unsent = self.transport.get_write_buffer_size()
        if unsent > self._unsent:  # the answer has begun since the last look
            self._send_by = now + self._all.answer_seconds + unsent / ANSWER_BYTES_PER_SECOND
        self._unsent = unsent
        if unsent:
            if now > self._send_by:
                self._all.refused("answer_timeout")
                self.transport.abort()
        elif (since := self.waits_since) is not None:
            new = self._in_head or self.cycle is None
            if now - since > (self._all.head_seconds if new else self._all.keep_alive_seconds):
                self._give_up()

    def _give_up(self) -> None:
        if self._in_head:
            seconds = f"{self._all.head_seconds:g} s"
            self._refuse(Problem("head_timeout", f"the head of the request took more than {seconds}; send it at once"))
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answer without the application, and close."""
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not answering and not self.pipeline:  # else the answer to another request would be garbled
            self.transport.write(_as_bytes(problem))
            self._all.refused(problem.code)
        self.transport.close()


def _as_bytes(problem: Problem) -> bytes:
    request_id = uuid4().hex
    body, media_type = write(problem, "/", request_id)
    lines = [f"HTTP/1.1 {problem.status} {http.HTTPStatus(problem.status).phrase}", "connection: close"]
    lines += [f"x-request-id: {request_id}", f"content-length: {len(body)}", f"content-type: {media_type}"]
    lines += [f"{name}: {value}" for name, value in problem.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _possible_connections() -> int:
    """Connections that fit into the open files of a process, whose limit is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, hard - _OTHER_FILES - _SPARE_CONNECTIONS)
