"""The end of a service: no new work, what was accepted is finished, and whoever asks is told to go elsewhere."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from isolatent_serve.problems import Problem, render
from isolatent_serve.registry import RETRY_SECONDS
from isolatent_serve.service import Service


class RefuseWhileDraining:
    """ASGI middleware that answers requests for work with 503 once the service drains.

    A request whose head came before that is accepted, wherever its body is.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        try:
            if not scope["state"].get("accepted"):  # told by connections.py, too
                self._service.require_open()
            _require_place(scope)
        except Problem as problem:
            await render(problem, Request(scope))(scope, receive, send)
            return
        with self._service.working():
            await self.app(scope, receive, send)


def _require_place(scope: Scope) -> None:
    # Told by connections.py; probes are answered all the same.
    if scope["state"].get("one_too_many"):
        headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
        detail = "too many connections are open; try again soon, or close some that are idle"
        raise Problem("too_many_connections", detail, headers=headers)
