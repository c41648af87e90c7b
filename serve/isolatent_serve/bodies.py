"""Request bodies: bytes off the wire within limits, then what they ask for. Nothing is decoded here.

A new encoding is one function from bytes to a `Body` and one line in `_READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from isolatent_export.inputs import Limits
from isolatent_serve import exchange, multipart
from isolatent_serve.inputs import Bulk, Files, Inputs, Json
from isolatent_serve.outputs import Output
from isolatent_serve.problems import Problem
from isolatent_serve.settings import RequestLimits

MEDIA_TYPES = (
    "multipart/form-data",
    "image/*",
    "model/*",
    "text/plain",
    "application/octet-stream",
    "application/json",
    "application/x-npy",
)

NUMBERS = ("application/json", "application/x-npy")
"""Those that carry numbers rather than files."""

_FAMILIES = ("image/", "model/")

_INLINE_BYTES = 16 * 2**10  # parsing this much costs less than handing it to another thread


@dataclass(frozen=True)
class Body:
    """A parsed body: its inputs, still encoded, and its other members as they were written."""

    inputs: Inputs
    fields: dict[str, Any] = field(default_factory=dict)


Reader = Callable[[bytes, str, Limits], Body]
"""(body, the whole Content-Type header, limits) -> Body. Raises Problem, or InputError for a limit."""


def accepted(output: Output) -> Sequence[str]:
    """The media types that a request for `output` may have."""
    return NUMBERS if output.of_latents else MEDIA_TYPES


def reader(request: Request, media_types: Sequence[str] = MEDIA_TYPES) -> Reader:
    """The reader of this request's Content-Type, one of `media_types`. Raises Problem `unsupported_media_type`."""
    require_uncompressed(request)
    return reader_of(_media_type(request.headers.get("Content-Type", "")), media_types)


def reader_of(media_type: str, media_types: Sequence[str] = MEDIA_TYPES) -> Reader:
    """The reader of `media_type`, one of `media_types`. Raises Problem `unsupported_media_type`."""
    family = next((f"{family}*" for family in _FAMILIES if media_type.startswith(family)), media_type)
    if family not in media_types:
        got = f"Content-Type {media_type!r}" if media_type else "no Content-Type"
        raise Problem("unsupported_media_type", f"{got}: send one of {', '.join(media_types)}")
    return _READERS[family]


def require_uncompressed(request: Request) -> None:
    """Raise Problem `unsupported_media_type` for a body that is gzip or the like: nothing here inflates."""
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise Problem("unsupported_media_type", f"Content-Encoding {coding!r}: send the body uncompressed")


async def read(request: Request, limits: RequestLimits) -> bytes:
    """The whole body, counted while it arrives: neither Content-Length nor chunking is believed.

    Begins the request's deadline once it is there. Raises Problem: `request_too_large`, `empty_body`, `queue_full`; the
    exchange ends with `body_timeout` or `deadline` otherwise.
    """
    announced = request.headers.get("Content-Length", "0")
    if int(announced) > limits.request_bytes:  # the HTTP parser has refused everything but digits
        raise _too_large(f"{announced} bytes", limits)
    watched = exchange.of(request)
    watched.limit(limits.body_seconds, lambda: _too_slow(limits))
    chunks: list[bytes] = []
    received, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        received += len(chunks[-1])
        if received > limits.request_bytes:
            raise _too_large(f"more than {limits.request_bytes} bytes", limits)
        watched.hold(len(chunks[-1]))
        more = message.get("more_body", False)
    if received == 0:
        raise Problem("empty_body", "the body is empty; send a file, or JSON with a member `input`")
    watched.limit(limits.deadline_seconds, lambda: too_late(limits))
    return b"".join(chunks)


def parse_is_costly(request: Request, body: bytes) -> bool:
    """Whether reading this body belongs on another thread than the event loop's."""
    return _is_costly(_media_type(request.headers.get("Content-Type", "")), len(body))


def quick_reader(content_type: str, size: int, media_types: Sequence[str]) -> Reader | None:
    """The reader of a body of `size` bytes, when it belongs on the thread of the event loop. Raises Problem."""
    media_type = _media_type(content_type)
    return None if _is_costly(media_type, size) else reader_of(media_type, media_types)


def _is_costly(media_type: str, size: int) -> bool:
    return media_type in ("application/json", "multipart/form-data") and size > _INLINE_BYTES


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _too_slow(limits: RequestLimits) -> Problem:
    detail = f"not all of it in {limits.body_seconds:g} s; send faster, or fewer inputs per request"
    return Problem("body_timeout", detail)


def too_late(limits: RequestLimits) -> Problem:
    """The problem of a request whose deadline has passed."""
    detail = f"not done within {limits.deadline_seconds:g} s; send fewer or smaller inputs per request, or later"
    return Problem("deadline", detail)


def _too_large(what: str, limits: RequestLimits) -> Problem:
    return Problem(
        "request_too_large", f"a body of {what}, the limit is {limits.request_bytes}; send fewer inputs per request"
    )


def _read_file(body: bytes, _content_type: str, _limits: Limits) -> Body:
    return Body(Files([body], single=True))


def _read_bulk(body: bytes, _content_type: str, _limits: Limits) -> Body:
    return Body(Bulk(body))


def _read_json(body: bytes, _content_type: str, _limits: Limits) -> Body:
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("malformed_json", f"{error}; send valid JSON in UTF-8, numbers finite") from None
    if not isinstance(members, dict):
        raise Problem("malformed_json", 'the body is not an object; send {"input": ...}')
    value = members.pop("input", None)
    if value is None:
        raise Problem("missing_input", "no member `input`; send a data URL, base64, nested numbers, or a list of them")
    return Body(Json(value), members)


def _read_multipart(body: bytes, content_type: str, limits: Limits) -> Body:
    form = multipart.parse(body, content_type, limits)
    if not form.inputs:
        raise Problem("missing_input", "no part named `input`; send each file as one, as in curl -F input=@FILE")
    return Body(Files(form.inputs), dict(form.fields))


_READERS: dict[str, Reader] = {
    "multipart/form-data": _read_multipart,
    "image/*": _read_file,
    "model/*": _read_file,
    "text/plain": _read_file,
    "application/octet-stream": _read_file,
    "application/json": _read_json,
    "application/x-npy": _read_bulk,
}
