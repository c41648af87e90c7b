"""What /openapi.json says about each route: bodies in every encoding, options, answers and problems."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from starlette.responses import PlainTextResponse

from isolatent_serve import answers, options, problems
from isolatent_serve.outputs import Output
from isolatent_serve.schemas import ProblemDetails

_BINARY = {"type": "string", "format": "binary"}
_NUMBERS = {
    "type": "array",
    "items": {},
    "description": "an image: whole numbers 0..255 as (H, W) or (H, W, C); a point cloud: numbers as (M, 3)",
}
_ITEM = {"anyOf": [{"type": "string", "description": "data URL or base64 of a file"}, _NUMBERS]}
_LATENT = {"type": "array", "items": {"type": "number"}, "description": "the d numbers of one latent"}
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="

_OPTIONS: dict[str, dict[str, Any]] = {
    "model": {"type": "string", "description": "may be left out when one model is served"},
    "encoding_format": {"type": "string", "enum": ["float", "base64"], "default": "float"},
    "on_error": {
        "type": "string",
        "enum": ["request", "item"],
        "default": "request",
        "description": "whether one bad input fails the request or only its own place in the answer",
    },
    "dimensions": {"type": "integer", "description": "accepted when it is the model's latent size"},
    "samples": {
        "type": "integer",
        "minimum": 1,
        "maximum": options.MOST_SAMPLES,
        "default": options.Options.samples,
        "description": "transformed copies of each input",
    },
    "user": {"description": "anything is accepted and ignored"},
}


def inference(output: Output, model: type[BaseModel]) -> dict[str, Any]:
    """Keyword arguments of an inference route."""
    names = [name for name in _OPTIONS if name in ("model", "encoding_format", "on_error") or name in output.options]
    allowed = {name: _OPTIONS[name] for name in names}
    parameters = [{"name": name, "in": "query", "required": False, "schema": allowed[name]} for name in names]
    content: dict[str, Any] = {answers.SAFETENSORS: {"schema": _BINARY}}
    if output.array:
        content[answers.NPY] = {"schema": {**_BINARY, "description": "when all inputs are good"}}
    if output.is_like_input:
        content[answers.PNG] = {"schema": {**_BINARY, "description": "one image"}}
        content[answers.PLY] = {"schema": {**_BINARY, "description": "one point cloud, binary little-endian PLY"}}
    return {
        "responses": {200: {"model": model, "content": content}, "default": _problem()},
        "openapi_extra": {"parameters": parameters, "requestBody": _request_body(output, allowed)},
    }


def plain(model: type[BaseModel]) -> dict[str, Any]:
    """Keyword arguments of a route without a body."""
    return {"responses": {200: {"model": model}, "default": _problem()}}


def text(description: str) -> dict[str, Any]:
    """Keyword arguments of a route that answers with plain text."""
    content = {"text/plain": {"schema": {"type": "string", "description": description}}}
    return {"response_class": PlainTextResponse, "responses": {200: {"content": content}, "default": _problem()}}


def finish(document: dict[str, Any]) -> dict[str, Any]:
    """Give problems their own media type, which FastAPI cannot say per response."""
    for address, operations in document["paths"].items():
        if problems.PROTOCOL_PATHS.match(address):
            continue
        for operation in operations.values():
            default = operation["responses"]["default"]
            (problem,) = default["content"].values()
            default["content"] = {problems.MEDIA_TYPE: problem}
    return document


def _problem() -> dict[str, Any]:
    return {"model": ProblemDetails, "description": f"A problem. Codes: {', '.join(problems.PROBLEMS)}"}


def _request_body(output: Output, allowed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    content = _latents(allowed) if output.of_latents else _items(allowed)
    return {"required": True, "content": content}


def _body(value: dict[str, Any], allowed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["input"],
        "additionalProperties": False,
        "properties": {"input": value, **allowed},
    }


def _or_null(allowed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """In JSON, null counts as not given."""
    return {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in allowed.items()}


def _latents(allowed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    schema = _body({"anyOf": [_LATENT, {"type": "array", "items": _LATENT}]}, _or_null(allowed))
    bulk = {**_BINARY, "description": "npy file of float32 or float64 (N, d) or (d,)"}
    examples = {"one": {"value": {"input": [0.25, -1.5]}}, "two": {"value": {"input": [[0.25, -1.5], [0, 0]]}}}
    return {
        "application/json": {"schema": schema, "examples": examples},
        "application/x-npy": {"schema": bulk},
    }


def _items(allowed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    json_schema = _body({"anyOf": [_ITEM, {"type": "array", "items": _ITEM}]}, _or_null(allowed))
    form_schema = _body({"type": "array", "items": _BINARY}, allowed)
    file = {"schema": {**_BINARY, "description": "one image or point cloud file, or an npy file of one item"}}
    bulk = {**_BINARY, "description": "npy file of uint8 (N, H, W[, C]) or float32 (N, M, 3)"}
    return {
        "application/json": {
            "schema": json_schema,
            "examples": {
                "data URL": {"value": {"input": f"data:image/png;base64,{_PIXEL}"}},
                "base64 list": {"value": {"input": [_PIXEL, _PIXEL], "encoding_format": "base64"}},
                "numbers": {"value": {"input": [[0, 255], [255, 0]]}},
            },
        },
        "multipart/form-data": {"schema": form_schema},
        "image/*": file,
        "model/*": file,
        "text/plain": file,
        "application/octet-stream": file,
        "application/x-npy": {"schema": bulk},
    }
