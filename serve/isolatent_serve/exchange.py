"""One request and its answer, watched while they last, at the price of one timer that seldom fires.

It ends early when the client has left, or when its time is over. An answer that does not wait for the body really
reaches the client: closing a connection while the client is still sending makes its kernel drop the answer, so what it
sends is thrown away for a short while first.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isolatent_serve.holding import Holding
from isolatent_serve.problems import Problem, render

PATIENCE = 0.1
"""Seconds after which it is worth looking whether the client is still there: most requests are done before."""

DRAIN_SECONDS = 2.0
DRAIN_BYTES = 256 * 2**20

_TICK = 0.001  # of the loop's clock


class WatchExchange:
    """ASGI middleware: an `Exchange` for every request. Raises ClientDisconnect when the client leaves it."""

    def __init__(self, app: ASGIApp, holding: Holding) -> None:
        self.app = app
        self._holding = holding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = scope["state"]["exchange"] = Exchange(scope, receive, send, self._holding)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.takes_back():
                raise
            if exchange.problem is None:
                raise ClientDisconnect from None
            await render(exchange.problem, Request(scope))(scope, exchange.receive, exchange.send)
        finally:
            exchange.end()


class Exchange:
    """What has arrived of a request and has gone of its answer, and how long that may take.

    It cancels the task that answers when the client has left, or late: then `problem` is the answer.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, holding: Holding) -> None:
        self.problem: Problem | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._holding = holding
        self._held = 0
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._arriving = _announces_body(scope)  # bytes of the body may still be on their way
        self._read = False
        self._answered = False
        self._has_left = False
        self._until = math.inf
        self._late: Callable[[], Problem] | None = None
        self._departure: asyncio.Task[None] | None = None
        self._look_at(self._loop.time() + PATIENCE)

    def limit(self, seconds: float, late: Callable[[], Problem]) -> None:
        """From now on the answer must begin within `seconds`, or `late` makes the problem that is the answer."""
        self._until, self._late = self._loop.time() + seconds, late
        if self._until < self._next:
            self._timer.cancel()
            self._look_at(self._until)

    async def receive(self) -> Message:
        """The next part of the request, as in ASGI."""
        message = await self._receive()
        if not message.get("more_body", False):
            self._arriving, self._read = False, True
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, as in ASGI."""
        self._answered = True
        if self._arriving:
            await self._send_early(message)
        else:
            await self._send(message)

    def takes_back(self) -> bool:
        """Whether it was this that cancelled the task; the task is as before then."""
        if self._task is None or not (self._has_left or self.problem):
            return False
        self._task.uncancel()
        return True

    def hold(self, size: int) -> None:
        """Keep `size` bytes of the body until the end. Raises Problem `queue_full` when all requests hold too many."""
        self._holding.add(size)
        self._held += size

    def end(self) -> None:
        """Watch no more."""
        self._holding.release(self._held)
        self._timer.cancel()
        if self._departure:
            self._departure.cancel()

    def _look_at(self, when: float) -> None:
        self._next = when
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self._answered or self._task is None:
            return
        if self._late and now + _TICK > self._until:
            self.problem = self._late()
            self._task.cancel()
        elif not self._read:
            self._look_at(min(self._until, now + PATIENCE))
        else:
            self._departure = self._departure or asyncio.create_task(self._await_departure(self._task))
            self._next = math.inf
            if self._until < math.inf:
                self._look_at(self._until)

    async def _await_departure(self, task: asyncio.Task[object]) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not (self._answered or self.problem):
            self._has_left = True
            task.cancel()

    async def _send_early(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
            await self._send(message)
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            # A client that waits for "100 Continue" has not begun to send.
            if "expect" not in Headers(scope=self._scope):
                await _drain(self._receive)
            await self._send({"type": "http.response.body", "body": b""})


def of(request: Request) -> Exchange:
    """The exchange that `request` is part of."""
    exchange: Exchange = request.scope["state"]["exchange"]
    return exchange


def _announces_body(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


async def _drain(receive: Receive) -> None:
    left = DRAIN_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
