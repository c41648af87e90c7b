"""The short way to the functions that answer inference requests: past routing, dependencies and validation.

They use none of these, which take longer than all else that is done for a small request.
"""

from __future__ import annotations

from fastapi.routing import APIRoute, APIRouter
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from isolatent_serve.problems import Problem, render


class ShortWay:
    """ASGI middleware that answers POST requests to the routes of `router` itself, each with its own function.

    Their addresses have no parameters, and the functions take the request and return the response. The framework has
    the same routes: for its documents, and to refuse other methods.
    """

    def __init__(self, app: ASGIApp, router: APIRouter) -> None:
        self.app = app
        self._routes = {route.path: route for route in router.routes if isinstance(route, APIRoute)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await route.endpoint(request)
        except Problem as problem:
            response = render(problem, request)
        await response(scope, receive, send)
