"""The end of a service: no new work, what was accepted is finished, and whoever asks is told to go elsewhere."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from isolatent_serve import service
from isolatent_serve.problems import Problem, render


class RefuseWhileDraining:
    """ASGI middleware that answers requests for work with 503 once the service drains.

    A request whose head came before that is accepted, wherever its body is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        running = service.of(request)
        try:
            running.require_open()
        except Problem as problem:
            await render(problem, request)(scope, receive, send)
            return
        with running.working():
            await self.app(scope, receive, send)
