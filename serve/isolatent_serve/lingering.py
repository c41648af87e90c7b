"""Answering before the body has arrived, so that the client really sees the answer.

Closing a connection while the client is still sending makes its kernel drop the answer. So the answer goes out at once,
what the client still sends is thrown away for a short while, and then the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_SECONDS = 2.0
DRAIN_BYTES = 256 * 2**20


class LingeringClose:
    """ASGI middleware for answers that do not need the body: refused types, sizes and addresses."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or not _announces_body(scope):
            await self.app(scope, receive, send)
            return
        pending = True  # body bytes may still be on their way

        async def watch() -> Message:
            nonlocal pending
            message = await receive()
            pending = pending and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def send_then_drain(message: Message) -> None:
            if not pending:
                await send(message)
            elif message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
                await send(message)
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                # A client that waits for "100 Continue" has not begun to send.
                if "expect" not in Headers(scope=scope):
                    await _drain(receive)
                await send({"type": "http.response.body", "body": b""})

        await self.app(scope, watch, send_then_drain)


def _announces_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


async def _drain(receive: Receive) -> None:
    left = DRAIN_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
