"""The outermost layer: a request id on everything, one log line per request, and no exception that gets out."""

from __future__ import annotations

import logging
import re
import time
from uuid import uuid4

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isolatent_serve.problems import Problem, render

HEADER = "X-Request-Id"

access_log = logging.getLogger("isolatent_serve.access")
error_log = logging.getLogger("isolatent_serve.errors")

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CLIENT_LEFT = 499  # nginx's number: nobody is there to see it but the reader of the log


class RequestContext:
    """ASGI middleware that gives each request its id, `request.state.request_id`, and logs how it ended.

    An unexpected exception becomes a 500 problem that names the id and nothing of the inside; the log has the rest.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = _CLIENT_LEFT
        except Exception:
            error_log.exception("request %s failed", request_id)
            if status == 0:
                await _apologise(scope, receive, send_with_id)
        finally:
            _log(scope, request_id, status, time.perf_counter() - began)


async def _apologise(scope: Scope, receive: Receive, send: Send) -> None:
    detail = "an unexpected failure; try again, and report it with the request_id if it stays"
    await render(Problem("internal", detail), Request(scope))(scope, receive, send)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(HEADER, "")
    return given if _ACCEPTED_ID.fullmatch(given) else uuid4().hex


def _log(scope: Scope, request_id: str, status: int, seconds: float) -> None:
    # JSON: whatever a client puts into a path stays inside its string, on this line.
    line = {
        "request_id": request_id,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 6),
    }
    access_log.info("%s", orjson.dumps(line).decode())
