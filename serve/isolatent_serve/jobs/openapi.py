"""What /openapi.json says about files and jobs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from isolatent_serve import openapi
from isolatent_serve.jobs import kinds, schemas
from isolatent_serve.jobs.pages import LARGEST_PAGE, PAGE
from isolatent_serve.jobs.rows import STATES
from isolatent_serve.jobs.schemas import JobRequest
from isolatent_serve.jobs.uploads import NAME_LENGTH
from isolatent_serve.protocol.openapi import inlined

KEY_HEADER = "Idempotency-Key"
KEY_LENGTH = 255

_BINARY = {"type": "string", "format": "binary"}
_SECONDS = {"schema": {"type": "integer", "minimum": 1}, "description": "seconds after which to ask again"}
_NAME = {"type": "string", "maxLength": NAME_LENGTH}
_EXAMPLES = {
    "file": {"value": {"input": "file-0123456789abcdef0123456789abcdef"}},
    "path": {"value": {"input": {"path": "images/2026/*.png"}, "outputs": ["posterior", "embedding"]}},
}


def listing(model: type[BaseModel], *, by_state: bool = False) -> dict[str, Any]:
    """Keyword arguments of a route that lists one page after the other."""
    parameters = [
        _query("page_size", {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE}),
        _query("page_token", {"type": "string", "description": "next_page_token of the page before"}),
    ]
    if by_state:
        parameters.append(_query("state", {"type": "string", "enum": list(STATES)}))
    return {**openapi.plain(model), "openapi_extra": {"parameters": parameters}}


def one(what: str, model: type[BaseModel], *, retry: bool = False) -> dict[str, Any]:
    """Keyword arguments of a route about one file or job; `retry`: it says when to ask again."""
    described = openapi.plain(model)
    if retry:
        described["responses"][200]["headers"] = {"Retry-After": _SECONDS}
    return {**described, "openapi_extra": {"parameters": [_identity(what)]}}


def removal(what: str) -> dict[str, Any]:
    """Keyword arguments of a route that deletes a file or job."""
    default = openapi.plain(BaseModel)["responses"]["default"]
    responses = {204: {"description": "Deleted"}, "default": default}
    return {"status_code": 204, "responses": responses, "openapi_extra": {"parameters": [_identity(what)]}}


def upload(model: type[BaseModel]) -> dict[str, Any]:
    """Keyword arguments of the route that takes a file."""
    form = {"type": "object", "required": ["file"], "properties": {"file": _BINARY}, "additionalProperties": False}
    content = {media_type: {"schema": _BINARY} for media_type in kinds.MEDIA_TYPES}
    default = openapi.plain(model)["responses"]["default"]
    name = _query("filename", {**_NAME, "description": "of the file; in a form, the part's own counts"})
    return {
        "status_code": 201,
        "responses": {201: {"model": model, "headers": {"Location": _text("its address")}}, "default": default},
        "openapi_extra": {
            "parameters": [name],
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}, **content}},
        },
    }


def creation(model: type[BaseModel]) -> dict[str, Any]:
    """Keyword arguments of the route that makes a job."""
    header = {
        "name": KEY_HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH},
        "description": "the same key with the same request is the same job, however often it is sent",
    }
    content = {"application/json": {"schema": inlined(JobRequest), "examples": _EXAMPLES}}
    headers = {"Location": _text("its address"), "Retry-After": _SECONDS}
    made = {"model": model, "headers": headers}
    return {
        "status_code": 202,
        "responses": {
            200: {**made, "description": "The job that was made with this Idempotency-Key before"},
            202: {**made, "description": "A new job"},
            "default": openapi.plain(model)["responses"]["default"],
        },
        "openapi_extra": {"parameters": [header], "requestBody": {"required": True, "content": content}},
    }


def part(media_types: tuple[str, ...]) -> dict[str, Any]:
    """Keyword arguments of the route that sends one part."""
    index = {"name": "index", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
    content = {media_type: {"schema": _BINARY} for media_type in media_types}
    default = openapi.plain(BaseModel)["responses"]["default"]
    responses = {200: {"content": content}, 206: {"content": content, "description": "A range"}, "default": default}
    return {"responses": responses, "openapi_extra": {"parameters": [_identity("job"), index]}}


def lines(description: str) -> dict[str, Any]:
    """Keyword arguments of a route that answers with lines of JSON."""
    content = {"application/x-ndjson": {"schema": {"type": "string", "description": description}}}
    default = openapi.plain(BaseModel)["responses"]["default"]
    return {
        "responses": {200: {"content": content}, "default": default},
        "openapi_extra": {"parameters": [_identity("job")]},
    }


def _identity(what: str) -> dict[str, Any]:
    pattern = schemas.FILE_ID if what == "file" else schemas.JOB_ID
    return {"name": what, "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _text(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string"}, "description": description}
