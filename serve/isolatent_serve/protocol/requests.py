"""Inference requests: a JSON object, and behind it the input as bytes, if it is not in the object. No decoding here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from isolatent_export.inputs import Limits
from isolatent_serve.inputs import Inputs
from isolatent_serve.problems import Problem
from isolatent_serve.protocol import tensors
from isolatent_serve.protocol.metadata import INPUT
from isolatent_serve.protocol.outputs import DEFAULT, HEADER_LENGTH, Wanted
from isolatent_serve.protocol.schemas import InferenceRequest, InputTensor

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Parsed:
    """What a request asks for, its input still encoded."""

    id: str | None
    inputs: Inputs
    wanted: tuple[Wanted, ...]


def header_length(text: str | None, body: bytes) -> int:
    """Bytes of the JSON object at the beginning of `body`; all of them without the header. Raises Problem."""
    if text is None:
        return len(body)
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= len(body)):
        raise _bad(f"{HEADER_LENGTH}: {text[:40]!r}, in a body of {len(body)} bytes; send the length of its JSON")
    return int(text)


def parse(body: bytes, length: int, known: Collection[str], limits: Limits) -> Parsed:
    """The request in `body`, whose first `length` bytes are JSON; `known` are the outputs there are.

    Raises Problem, or InputError for what is wrong with the input.
    """
    request = read(body[:length], InferenceRequest)
    return Parsed(request.id, _inputs(request, memoryview(body)[length:], limits), _wanted(request, known))


def read(text: bytes, model: type[M]) -> M:
    """The JSON object `text` as a `model`. Raises Problem."""
    try:
        members = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        advice = f"numbers finite, and its length in {HEADER_LENGTH} when bytes follow"
        raise Problem("malformed_json", f"{error}; send valid JSON in UTF-8, {advice}") from None
    try:
        return model.model_validate(members)
    except ValidationError as errors:
        first = errors.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise _bad(f"{where}: {first['msg']}; see /openapi.json") from None


def _inputs(request: InferenceRequest, binary: memoryview, limits: Limits) -> Inputs:
    names = [tensor.name for tensor in request.inputs]
    if names != [INPUT]:
        raise _bad(f"inputs {_listed(names)}; the model has one, {INPUT!r}: send all items in one tensor")
    tensor = request.inputs[0]
    elements = _elements(tensor, binary)
    if tensor.datatype == tensors.FILES:
        return tensors.files(tensor.shape, elements, limits)
    return tensors.Numbers(tensor.datatype, tuple(tensor.shape), elements)


def _elements(tensor: InputTensor, binary: memoryview) -> memoryview | list[Any]:
    parameters = tensor.parameters
    if parameters and parameters.shared_memory_region is not None:
        raise _bad(f"{tensor.name}: no memory is shared here; send the tensor as `data` or as binary data")
    size = parameters.binary_data_size if parameters else None
    if (size or 0) != len(binary):
        raise _bad(
            f"{tensor.name}: binary_data_size is {'not given' if size is None else size}, and {len(binary)} bytes "
            f"follow the JSON, as {HEADER_LENGTH} says; correct either"
        )
    if size is None and isinstance(tensor.data, list):
        return tensor.data
    if size is None or tensor.data is not None:
        raise _bad(f"{tensor.name}: send either `data`, a list, or binary data with its binary_data_size")
    return binary


def _wanted(request: InferenceRequest, known: Collection[str]) -> tuple[Wanted, ...]:
    asked = request.outputs or []
    names = [output.name for output in asked] or list(DEFAULT)
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        raise _bad(f"outputs {_listed(unknown or names)}; ask, once each, for some of {', '.join(known)}")
    binary = bool(request.parameters and request.parameters.binary_data_output)
    if not asked:
        return tuple(Wanted(name, binary) for name in names)
    wanted: list[Wanted] = []
    for output in asked:
        parameters = output.parameters
        if parameters and (parameters.classification is not None or parameters.shared_memory_region is not None):
            raise _bad(f"{output.name}: neither classification nor shared memory is known here; leave them out")
        own = parameters.binary_data if parameters else None
        wanted.append(Wanted(output.name, binary if own is None else own))
    return tuple(wanted)


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:5]) or "none"


def _bad(detail: str) -> Problem:
    return Problem("bad_request", detail)
