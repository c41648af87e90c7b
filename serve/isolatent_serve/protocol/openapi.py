"""What /openapi.json says about the addresses of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, TypeAdapter

from isolatent_serve.protocol.outputs import HEADER_LENGTH
from isolatent_serve.protocol.schemas import InferenceRequest, InferenceResponse, ProtocolError

_BINARY = {"type": "string", "format": "binary"}
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="

_EXAMPLES: dict[str, dict[str, Any]] = {
    "files": {"inputs": [{"name": "input", "datatype": "BYTES", "shape": [2], "data": [_PIXEL, _PIXEL]}]},
    "pixels": {
        "id": "42",
        "inputs": [{"name": "input", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [0, 255, 255, 0]}],
        "outputs": [{"name": "embedding"}],
    },
}


def plain(model: Any) -> dict[str, Any]:
    """Keyword arguments of a route without a body, whose answer is a `model`."""
    return {"responses": {200: {"model": model}, "default": _error()}}


def of_model(model: type[BaseModel], *parameters: str) -> dict[str, Any]:
    """Keyword arguments of a route without a body, with these parameters in its path."""
    return {**plain(model), "openapi_extra": {"parameters": _in_path(parameters)}}


def listing(model: Any, request: type[BaseModel]) -> dict[str, Any]:
    """Keyword arguments of a route whose body may be left out."""
    content = {"application/json": {"schema": TypeAdapter(request).json_schema(), "examples": {"all": {"value": {}}}}}
    return {**plain(model), "openapi_extra": {"requestBody": {"required": False, "content": content}}}


def inference(*parameters: str) -> dict[str, Any]:
    """Keyword arguments of an inference route, with these parameters in its path."""
    length = {
        "name": HEADER_LENGTH,
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 1},
        "description": "bytes of the JSON, when the bytes of the input follow it",
    }
    follows = {**_BINARY, "description": f"the JSON, {HEADER_LENGTH} bytes long, then the bytes of the tensors"}
    answer = {"model": InferenceResponse, "content": {"application/octet-stream": {"schema": follows}}}
    return {
        "responses": {200: answer, "default": _error()},
        "openapi_extra": {
            "parameters": [*_in_path(parameters), length],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": inlined(InferenceRequest),
                        "examples": {name: {"value": example} for name, example in _EXAMPLES.items()},
                    },
                    "application/octet-stream": {"schema": follows},
                },
            },
        },
    }


def _error() -> dict[str, Any]:
    return {"model": ProtocolError, "description": "What went wrong, with the status of the same problem elsewhere"}


def _in_path(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The schema without references: FastAPI collects the schemas of answers only."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, list):
            return [inline(entry) for entry in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inline(definitions[part["$ref"].rpartition("/")[2]])
        return {name: inline(value) for name, value in part.items()}

    inlined = inline(schema)
    assert isinstance(inlined, dict)
    return inlined
