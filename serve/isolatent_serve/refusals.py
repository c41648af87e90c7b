"""What the framework refuses, answered with problems as everything else that is refused."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from isolatent_serve.problems import Problem, render

_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 406: "not_acceptable", 415: "unsupported_media_type"}


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem, those of the framework included."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return render(error, request)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _BY_STATUS.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
    where = f"{request.method} {request.url.path}"
    headers = dict(error.headers or {})
    methods = request.app.state.methods.get(getattr(request.scope.get("route"), "path", None))
    if error.status_code == 405 and methods:
        headers["Allow"] = ", ".join(methods)
    detail = {
        "not_found": f"{where}: no such address; /openapi.json lists them all",
        "method_not_allowed": f"{where}: use {headers.get('Allow', 'another method')}",
    }.get(code, f"{where}: {error.detail}; see /openapi.json")
    return render(Problem(code, detail, headers=headers), request)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return render(Problem("bad_request", f"{where}: {first['msg']}; see /openapi.json"), request)
