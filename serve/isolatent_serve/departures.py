"""Clients that leave before their answer: what is still to be done for them is not done."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE = 0.05
"""Seconds after which it is worth looking: most requests are done before, and pay nothing."""


class CancelDeparted:
    """ASGI middleware that cancels a request when its client has closed the connection. Raises ClientDisconnect."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        watch = _Watch(receive, send)
        try:
            await self.app(scope, watch.receive, watch.send)
        except asyncio.CancelledError:
            if not watch.has_left:
                raise
            raise ClientDisconnect from None
        finally:
            watch.end()


class _Watch:
    """Looks for the end of the connection once the body is there, until the answer begins."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.has_left = False
        self._receive = receive
        self._send = send
        self._request = asyncio.current_task()
        self._body_arrived = False
        self._answered = False
        self._task: asyncio.Task[None] | None = None
        self._arm()

    async def receive(self) -> Message:
        message = await self._receive()
        self._body_arrived = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        self._answered = True
        await self._send(message)

    def end(self) -> None:
        self._timer.cancel()
        if self._task:
            self._task.cancel()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._look)

    def _look(self) -> None:
        if self._body_arrived:
            self._task = asyncio.create_task(self._wait())
        else:
            self._arm()

    async def _wait(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._answered and self._request:
            self.has_left = True
            self._request.cancel()
