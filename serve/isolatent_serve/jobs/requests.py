"""What a request says about the job that it wants."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import ValidationError
from starlette.requests import Request

from isolatent_serve import bodies
from isolatent_serve.jobs.openapi import KEY_HEADER, KEY_LENGTH
from isolatent_serve.jobs.pages import require_known
from isolatent_serve.jobs.schemas import JobRequest
from isolatent_serve.problems import Problem
from isolatent_serve.settings import RequestLimits

BODY_BYTES = 64 * 2**10

_INPUT = 'input: expected "file-...", {"file": "file-..."} or {"path": "..."}, with a member `column` if need be'


async def read(request: Request, limits: RequestLimits) -> tuple[JobRequest, str | None]:
    """The job that is asked for, and its idempotency key, if any.

    Raises Problem: `unsupported_media_type`, `malformed_json`, `missing_input`, `unknown_field`, `invalid_option`, and
    those of reading a body.
    """
    bodies.reader(request, ("application/json",))
    require_known(request, set())
    key = _key(request)
    body = await bodies.read(request, limits.model_copy(update={"request_bytes": BODY_BYTES}))
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("malformed_json", f"{error}; send valid JSON in UTF-8") from None
    if not isinstance(members, dict):
        raise Problem("malformed_json", 'the body is not an object; send {"input": ...}')
    given = {name: value for name, value in members.items() if value is not None}
    if "input" not in given:
        raise Problem("missing_input", 'no member `input`; upload a file, and send {"input": "file-..."}')
    try:
        return JobRequest.model_validate(given), key
    except ValidationError as error:
        raise _problem(error.errors()[0]) from None


def _key(request: Request) -> str | None:
    key = request.headers.get(KEY_HEADER)
    if key is not None and not 0 < len(key) <= KEY_LENGTH:
        raise Problem("invalid_option", f"{KEY_HEADER}: expected 1 to {KEY_LENGTH} characters; make up a shorter one")
    return key


def _problem(first: Any) -> Problem:
    place = [str(part) for part in first["loc"]]
    name = place[0][:80]
    if name == "input":
        return _at("/input", "invalid_option", _INPUT)
    if first["type"] == "extra_forbidden":
        known = ", ".join(JobRequest.model_fields)
        return _at(f"/{_escaped(name)}", "unknown_field", f"field {name!r} is not known here; known are {known}")
    detail = f"{'.'.join(place)[:200]}: {first['msg']}; correct it or leave it out"
    return _at("/" + "/".join(map(_escaped, place)), "invalid_option", detail)


def _at(pointer: str, code: str, detail: str) -> Problem:
    return Problem(code, detail, errors=[(pointer, detail)])


def _escaped(name: str) -> str:
    return name[:80].replace("~", "~0").replace("/", "~1")
