"""Every error answer of the service: application/problem+json (RFC 9457), from one table of codes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
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
    "path_refused": (400, "The path is not one that jobs may read"),
    "missing_key": (401, "The request has no key"),
    "invalid_key": (401, "The key is not known"),
    "not_found": (404, "There is no such resource"),
    "model_not_found": (404, "There is no such model"),
    "file_not_found": (404, "There is no such file"),
    "job_not_found": (404, "There is no such job"),
    "part_not_found": (404, "There is no such part of the results"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "not_acceptable": (406, "No acceptable answer format"),
    "head_timeout": (408, "The head of the request did not arrive in time"),
    "body_timeout": (408, "The body did not arrive in time"),
    "idempotency_conflict": (409, "The idempotency key belongs to another request"),
    "file_in_use": (409, "A job needs the file"),
    "job_not_over": (409, "The job is not over"),
    "request_too_large": (413, "The request body is too large"),
    "too_many_bytes": (413, "An input has too many bytes"),
    "too_many_pixels": (413, "An input has too many pixels"),
    "too_many_points": (413, "An input has too many points"),
    "too_many_items": (413, "The request has too many inputs"),
    "too_much_memory": (413, "The request takes too much memory"),
    "unsupported_media_type": (415, "The body has a type this service does not read"),
    "range_not_satisfiable": (416, "The range is not part of the file"),
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
    "jobs_off": (501, "The service does no jobs"),
    "not_ready": (503, "The service is starting"),
    "worker_lost": (503, "The thread that runs the model was lost"),
    "too_many_connections": (503, "The service has as many connections as it accepts"),
    "draining": (503, "The service is ending"),
    "deadline": (504, "The deadline passed"),
    "storage_full": (507, "There is no room for the file"),
}
"""Stable code -> HTTP status and title."""

CLOSED = ("answer_timeout",)
"""Counted with the codes: connections that are closed without a word, as their clients do not take an answer."""

OF_INPUTS = frozenset(code for code, (status, _) in PROBLEMS.items() if status in (413, 422)) - {
    "consistency_unavailable"
}
"""What can be wrong with the content of one input."""

LISTED_ERRORS = 20
"""Bad items named in one answer; more would only make it long."""

_OPENAI_PATHS = re.compile(r"/v1/(embeddings|models)(/|$)")
PROTOCOL_PATHS = re.compile(r"/v2(/|$)")
"""Those of the Open Inference Protocol, whose errors are {"error": ...} and no more."""


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
    """The response that carries `problem`."""
    request.state.code = problem.code  # for the log and the metrics
    body, media_type = write(problem, request.scope["path"], request.state.request_id)
    return Response(body, problem.status, problem.headers, media_type)


def write(problem: Problem, path: str, request_id: str) -> tuple[bytes, str]:
    """The body that says `problem`, and its media type; on OpenAI's paths with the member their clients read."""
    if PROTOCOL_PATHS.match(path):
        return orjson.dumps({"error": problem.detail}), "application/json"
    body: dict[str, Any] = {
        "type": f"urn:isolatent:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.errors:
        listed = problem.errors[:LISTED_ERRORS]
        body["errors"] = [{"pointer": pointer, "detail": detail} for pointer, detail in listed]
    if _OPENAI_PATHS.match(path):
        body["error"] = _openai(problem)
    return orjson.dumps(body), MEDIA_TYPE


def _openai(problem: Problem) -> dict[str, str | None]:
    kind = "invalid_request_error" if problem.status < 500 else "server_error"
    param = problem.errors[0][0].removeprefix("/").split("/")[0] if problem.errors else None
    return {"message": problem.detail, "type": kind, "param": param, "code": problem.code}
