"""The outermost layer: a request id on everything, one log line per request, and no exception that gets out."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isolatent_serve import logs
from isolatent_serve.metrics import Metrics
from isolatent_serve.problems import Problem, render

HEADER = "X-Request-Id"
RAW_HEADER = HEADER.lower().encode()

access_log = logging.getLogger("isolatent_serve.access")
error_log = logging.getLogger("isolatent_serve.errors")

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CLIENT_LEFT = 499
"""nginx's number: nobody is there to see it but the reader of the log."""
APOLOGY = "an unexpected failure; try again, and report it with the request_id if it stays"
_ROUTINE = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LOGGED = ("code", "key", "model", "inputs", "trace_id")
"""Members of `request.state` that the log line has where they are set: the problem's code, the key's name, ..."""


class RequestContext:
    """ASGI middleware that gives each request its id, `request.state.request_id`, logs how it ended and counts it.

    `routes` are the addresses without parameters. An unexpected exception becomes a 500 problem that names the id and
    nothing of the inside; the log has the rest.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str] = frozenset()) -> None:
        self.app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        identity = request_id(Headers(scope=scope).get(HEADER, ""))
        state = scope.setdefault("state", {})
        state["request_id"] = identity
        token = logs.current_request.set(identity)
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (RAW_HEADER, identity.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception:
            error_log.exception("request %s failed", identity)
            if status == 0:
                await _apologise(scope, receive, send_with_id)
        finally:
            self._end(scope, state, status, time.perf_counter() - began)
            logs.current_request.reset(token)

    def _end(self, scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
        route = self._route(scope)
        state["route"], state["status"] = route, status
        note(self._metrics, scope["method"], route, scope["path"], status, seconds, state)

    def _route(self, scope: Scope) -> str:
        """The template of the address: there are few of them, whatever clients ask for."""
        path: str = scope["path"]
        if path in self._routes:
            return path
        return getattr(scope.get("route"), "path", "unknown")


def note(
    metrics: Metrics, method: str, route: str, path: str, status: int, seconds: float, state: Mapping[str, Any]
) -> None:
    """Count and log a request that has ended. `route` is the template of its address, `path` what the client wrote."""
    known = method if method in _METHODS else "OTHER"
    metrics.request(known, route, status, seconds)
    if "code" in state:
        metrics.rejected(state["code"])
    fields = {"method": method, "path": path, "status": status, "seconds": round(seconds, 6)}
    for name in _LOGGED:
        if name in state:
            fields[name] = state[name]
    level = logging.DEBUG if route in _ROUTINE else logging.INFO
    logs.say(access_log, level, f"{known} {route} {status}", fields)


async def _apologise(scope: Scope, receive: Receive, send: Send) -> None:
    await render(Problem("internal", APOLOGY), Request(scope))(scope, receive, send)


def request_id(given: str) -> str:
    """The id that the client gave, or a new one when it gave none that is accepted."""
    return given if _ACCEPTED_ID.fullmatch(given) else token_hex(16)
