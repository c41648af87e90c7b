"""Every error answer of the service: application/problem+json (RFC 9457), from one table of codes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from isolatent_export.inputs import InputError

MEDIA_TYPE = "application/problem+json"

PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed_json": (400, "The body is not the JSON this service reads"),
    "malformed_multipart": (400, "The body is not well-formed multipart/form-data"),
    "empty_body": (400, "The request has no body"),
    "missing_input": (400, "The request has no input"),
    "unknown_field": (400, "The request has a field this service does not know"),
    "invalid_option": (400, "An option has a value it cannot have"),
    "unknown_encoding_format": (400, "The encoding format is not known"),
    "model_required": (400, "Several models are served and none was named"),
    "urls_refused": (400, "Network addresses are not fetched"),
    "malformed_http": (400, "The request is not well-formed HTTP"),
    "bad_request": (400, "The request is not valid"),
    "missing_key": (401, "The request has no key"),
    "invalid_key": (401, "The key is not known"),
    "not_found": (404, "There is no such resource"),
    "model_not_found": (404, "There is no such model"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "not_acceptable": (406, "No acceptable answer format"),
    "head_timeout": (408, "The head of the request did not arrive in time"),
    "body_timeout": (408, "The body did not arrive in time"),
    "request_too_large": (413, "The request body is too large"),
    "too_many_bytes": (413, "An input has too many bytes"),
    "too_many_pixels": (413, "An input has too many pixels"),
    "too_many_points": (413, "An input has too many points"),
    "too_many_items": (413, "The request has too many inputs"),
    "too_much_memory": (413, "The request takes too much memory"),
    "unsupported_media_type": (415, "The body has a type this service does not read"),
    "undecodable": (422, "An input cannot be decoded"),
    "wrong_shape": (422, "An input has the wrong shape"),
    "wrong_dtype": (422, "An input has the wrong number type"),
    "empty_input": (422, "An input is empty"),
    "degenerate": (422, "An input has no extent"),
    "non_finite": (422, "An input has coordinates that are no finite numbers"),
    "parser_crashed": (422, "The reader of an input failed"),
    "parser_timeout": (422, "An input takes too long to read"),
    "parser_memory": (422, "An input takes too much memory to read"),
    "non_finite_output": (422, "The model has no finite answer for an input"),
    "consistency_unavailable": (422, "The model's consistency cannot be measured"),
    "queue_full": (429, "The service has as much to do as it accepts"),
    "head_too_large": (431, "The head of the request is too large"),
    "internal": (500, "The service failed"),
    "not_ready": (503, "The service is starting"),
    "worker_lost": (503, "The thread that runs the model was lost"),
    "too_many_connections": (503, "The service has as many connections as it accepts"),
    "draining": (503, "The service is ending"),
    "deadline": (504, "The deadline passed"),
}
"""Stable code -> HTTP status and title."""

OF_INPUTS = frozenset(code for code, (status, _) in PROBLEMS.items() if status in (413, 422)) - {
    "consistency_unavailable"
}
"""What can be wrong with the content of one input."""

LISTED_ERRORS = 20
"""Bad items named in one answer; more would only make it long."""

_OPENAI_PATHS = re.compile(r"/v1/(embeddings|models)(/|$)")
PROTOCOL_PATHS = re.compile(r"/v2(/|$)")
"""Those of the Open Inference Protocol, whose errors are {"error": ...} and no more."""
_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 406: "not_acceptable", 415: "unsupported_media_type"}


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it that
    """A request that is answered with an error. `detail` says what is wrong and names the remedy.

    `errors` are pairs (JSON pointer into the body, detail), for problems that have a place.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.status, self.title = PROBLEMS[code]


def at(pointer: str, error: InputError) -> Problem:
    """The problem of one input, or of the whole `input`, found at `pointer`."""
    return Problem(error.code, error.detail, errors=[(pointer, error.detail)])


def render(problem: Problem, request: Request) -> Response:
    """The response that carries `problem`; on OpenAI's paths with the member their clients read."""
    request.state.code = problem.code  # for the log and the metrics
    if PROTOCOL_PATHS.match(request.url.path):
        error = orjson.dumps({"error": problem.detail})
        return Response(error, problem.status, problem.headers, "application/json")
    body: dict[str, Any] = {
        "type": f"urn:isolatent:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request.state.request_id,
    }
    if problem.errors:
        listed = problem.errors[:LISTED_ERRORS]
        body["errors"] = [{"pointer": pointer, "detail": detail} for pointer, detail in listed]
    if _OPENAI_PATHS.match(request.url.path):
        body["error"] = _openai(problem)
    return Response(orjson.dumps(body), problem.status, problem.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem, those of the framework included."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


def _openai(problem: Problem) -> dict[str, str | None]:
    kind = "invalid_request_error" if problem.status < 500 else "server_error"
    param = problem.errors[0][0].removeprefix("/").split("/")[0] if problem.errors else None
    return {"message": problem.detail, "type": kind, "param": param, "code": problem.code}


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return render(error, request)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _BY_STATUS.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
    where = f"{request.method} {request.url.path}"
    detail = {
        "not_found": f"{where}: no such address; /openapi.json lists them all",
        "method_not_allowed": f"{where}: use {(error.headers or {}).get('Allow', 'another method')}",
    }.get(code, f"{where}: {error.detail}; see /openapi.json")
    return render(Problem(code, detail, headers=error.headers), request)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return render(Problem("bad_request", f"{where}: {first['msg']}; see /openapi.json"), request)
