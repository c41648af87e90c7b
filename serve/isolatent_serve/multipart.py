"""multipart/form-data held in memory: the body has been counted already, so nothing is spooled to disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from isolatent_export.inputs import InputError, Limits
from isolatent_serve.problems import Problem

INPUT = "input"
FIELD_BYTES = 1024
"""Bytes of one field that is not an input; model names and options are short."""


@dataclass
class Form:
    """The parts named `input`, in their order, and the other fields."""

    inputs: list[bytes] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


def parse(body: bytes, content_type: str, limits: Limits) -> Form:
    """Split `body` at the boundary that `content_type` names.

    Raises Problem `malformed_multipart`, InputError `too_many_items` or `too_many_bytes`.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _malformed("the Content-Type has no boundary; let the HTTP client write it")
    collector = _Collector(limits)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.begin,
                "on_header_field": collector.header_name,
                "on_header_value": collector.header_value,
                "on_header_end": collector.header_end,
                "on_headers_finished": collector.headers_finished,
                "on_part_data": collector.data,
                "on_part_end": collector.end,
                "on_end": collector.finish,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise _malformed(f"{error}; send it with an HTTP client's form support") from None
    if not collector.finished:
        raise _malformed("the last boundary is missing; send the whole body")
    return collector.form


def _malformed(detail: str) -> Problem:
    return Problem("malformed_multipart", detail)


class _Collector:
    """The parser's callbacks: collects one part at a time into a Form."""

    def __init__(self, limits: Limits) -> None:
        self.form = Form()
        self.finished = False
        self._limits = limits
        self._name = ""
        self._value = bytearray()
        self._header = (bytearray(), bytearray())
        self._disposition = b""

    def begin(self) -> None:
        self._name, self._disposition = "", b""
        self._value = bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def headers_finished(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name")
        if name is None:
            raise _malformed("a part has no name; name the files `input`")
        self._name = _text(name)
        if self._name == INPUT and len(self.form.inputs) >= self._limits.items:
            raise InputError("too_many_items", f"the limit is {self._limits.items} items; send several requests")

    def data(self, data: bytes, start: int, end: int) -> None:
        size = len(self._value) + end - start
        if self._name == INPUT and size > self._limits.item_bytes:
            where, limit = len(self.form.inputs), self._limits.item_bytes
            raise InputError(
                "too_many_bytes", f"input {where}: the limit is {limit} bytes per item; send a smaller file"
            )
        if self._name != INPUT and size > FIELD_BYTES:
            raise _malformed(f"field {self._name[:80]!r} is longer than {FIELD_BYTES} bytes; files are named `input`")
        self._value += data[start:end]

    def end(self) -> None:
        if self._name == INPUT:
            self.form.inputs.append(bytes(self._value))
        elif self._name in self.form.fields:
            raise _malformed(f"field {self._name[:80]!r} is given twice; give it once")
        else:
            self.form.fields[self._name] = _text(self._value)

    def finish(self) -> None:
        self.finished = True


def _text(value: bytes | bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _malformed("a name or field is not UTF-8; send text fields in UTF-8") from None
