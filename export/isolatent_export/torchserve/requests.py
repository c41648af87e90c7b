"""What TorchServe hands to the handler for one request becomes items to encode, or the reason why it cannot be."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import orjson
from numpy.typing import NDArray

from isolatent_export.inputs import InputError, Limits, decode_batch, decode_item, require_memory
from isolatent_export.manifest import InputSpec

Array = NDArray[Any]

OUTPUTS = ("posterior", "embedding", "reconstruction", "model")
OUTPUT_HEADER = "x-isolatent-output"
"""TorchServe passes no query parameters on from /predictions/NAME, but every header."""

NPY = "application/x-npy"

_BODIES = ("body", "input", "data")  # TorchServe's name for a raw body, ours and its examples' for a part of a form
_FIELDS = frozenset({"output", "model_name"})  # the second belongs to /invocations
_DATA_URL = re.compile(r"data:[^,]{0,256};base64,", re.IGNORECASE)


class Refusal(Exception):  # noqa: N818 - an answer like others
    """A request that is answered with a problem. `pointer`: the input that is wrong, if it is one."""

    def __init__(self, code: str, detail: str, pointer: str | None = None) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.pointer = pointer


@dataclass(frozen=True)
class Request:
    """A request that can be answered: `items` (N, *spec.shape), N = 0 for the output `model`; `single`: not a list."""

    output: str
    accept: str
    items: Array
    single: bool = False

    def pointer(self, place: int) -> str:
        """Where an item stands in the request, as a JSON pointer."""
        return "/input" if self.single else f"/input/{place}"


def read(row: Mapping[str, Any], given: Mapping[str, Any], spec: InputSpec, limits: Limits) -> Request:
    """The request with the parameters `row` and the headers `given`. Raises Refusal."""
    # TorchServe keeps entries of its own among the headers, which are no texts.
    headers = {name.lower(): value for name, value in given.items() if isinstance(value, str)}
    found = [name for name in _BODIES if name in row]
    if len(found) > 1:
        raise Refusal("missing_input", f"inputs in {' and '.join(found)}; send one, or a list of them as JSON")
    content = row[found[0]] if found else b""
    fields = {name: _text(value) for name, value in row.items() if name not in found}
    media_type = _media_type(found, given, headers)
    document = _document(content) if isinstance(content, dict) or media_type == "application/json" else None
    if document is not None:
        fields |= {name: value for name, value in document.items() if name != "input"}
    output, accept = _output(fields, headers), headers.get("accept", "")
    if output == "model":
        return Request(output, accept, np.empty(0))
    if document is not None:
        return Request(output, accept, *_from_json(document.get("input"), spec, limits))
    return Request(output, accept, *_from_bytes(content, media_type, spec, limits))


def _media_type(found: list[str], given: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """Of the body or the part of a form. TorchServe keeps a part's among the headers, under the part's name."""
    part = given.get(found[0]) if found and found[0] != "body" else None
    media_type = part.get("content-type") if isinstance(part, dict) else headers.get("content-type")
    return (media_type or "").split(";")[0].strip().lower()


def _document(content: Any) -> dict[str, Any]:
    """A JSON body as an object: TorchServe may have read it already."""
    if isinstance(content, bytes | bytearray):
        try:
            content = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise Refusal("malformed_json", f"not JSON ({error})") from None
    if not isinstance(content, dict):
        raise Refusal("malformed_json", 'not a JSON object; send {"input": ..., "output": ...}')
    return dict(content)


def _output(fields: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    unknown = sorted(fields.keys() - _FIELDS)
    if unknown:
        detail = f"field {unknown[0][:80]!r} is not known here; known are input and output, and one input to a form"
        raise Refusal("unknown_field", detail)
    output = fields.get("output") or headers.get(OUTPUT_HEADER) or OUTPUTS[0]
    if output not in OUTPUTS:
        raise Refusal("invalid_option", f"output {str(output)[:80]!r}; there are {', '.join(OUTPUTS)}")
    return str(output)


def _from_bytes(content: Any, media_type: str, spec: InputSpec, limits: Limits) -> tuple[Array, bool]:
    """The items of a raw body or of the one part of a form, and whether it is a single one."""
    data = content.encode() if isinstance(content, str) else bytes(content)
    if not data:
        hint = "post a file with its Content-Type, such as application/octet-stream; curl's own is that of forms"
        raise Refusal("missing_input", f"no input; {hint}")
    try:
        if media_type == NPY:
            return decode_batch(data, spec, limits), False
        return decode_item(data, spec, limits)[None], True
    except InputError as error:
        raise Refusal(error.code, error.detail, "/input") from None


def _from_json(given: Any, spec: InputSpec, limits: Limits) -> tuple[Array, bool]:
    """The items of the member `input`, each base64 or a data URL, and whether it is a single one and no list."""
    single = not isinstance(given, list)
    texts = [given] if single else given
    if given is None or not texts:
        raise Refusal("missing_input", "no member `input`; send base64, a data URL, or a list of them")
    if len(texts) > limits.items:
        raise Refusal("too_many_items", f"{len(texts)} items, the limit is {limits.items}; send several requests")
    try:
        require_memory(len(texts), spec, limits)
    except InputError as error:
        raise Refusal(error.code, error.detail, "/input") from None
    items = []
    for place, text in enumerate(texts):
        try:
            items.append(decode_item(_from_text(text, limits), spec, limits))
        except InputError as error:
            raise Refusal(error.code, error.detail, "/input" if single else f"/input/{place}") from None
    return np.stack(items), single


def _from_text(text: Any, limits: Limits) -> bytes:
    """The bytes in a data URL or base64 string, measured before they are decoded."""
    if not isinstance(text, str):
        _undecodable()
    url = _DATA_URL.match(text)
    start = url.end() if url else 0
    size = (len(text) - start) * 3 // 4
    if size > limits.item_bytes + 2:
        raise InputError(
            "too_many_bytes", f"about {size} bytes, the limit is {limits.item_bytes} per item; send a smaller file"
        )
    try:
        return binascii.a2b_base64(text[start:], strict_mode=True)
    except ValueError:  # binascii.Error, and characters outside ASCII
        _undecodable()


def _undecodable() -> NoReturn:
    raise InputError("undecodable", "neither a data URL nor base64 (RFC 4648 section 4, padded); numbers go as npy")


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)
