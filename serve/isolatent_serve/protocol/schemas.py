"""The JSON of the Open Inference Protocol as types. Requests are read with these; the answers are tested with them.

Members and parameters that are not named here are ignored, as the protocol has it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

_MOST_AXES = 8
_LONGEST = 2**31 - 1

Side = Annotated[int, Field(ge=0, le=_LONGEST)]

Elements = Annotated[Any, WithJsonSchema({"type": "array", "items": {}, "description": "row-major, nested or flat"})]
"""Looked at in tensors.py: a model of each number would take a hundred times the time of the numbers."""


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TensorParameters(_Request):
    """Parameters of an input."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="bytes of this tensor after the JSON, whose length Inference-Header-Content-Length says",
    )
    shared_memory_region: Any = Field(default=None, description="refused: no memory is shared")


class InputTensor(_Request):
    """An input. UINT8 pixels or FP32 points; or BYTES, with a file in each element, in JSON as base64 or data URL."""

    name: str = Field(examples=["input"])
    shape: Annotated[list[Side], Field(max_length=_MOST_AXES)] = Field(examples=[[1, 28, 28, 1]])
    datatype: str = Field(examples=["UINT8"])
    parameters: TensorParameters | None = None
    data: Elements = None


class OutputParameters(_Request):
    """Parameters of an output."""

    binary_data: bool | None = Field(default=None, description="whether it comes as bytes after the JSON")
    classification: Any = Field(default=None, description="refused: nothing here has classes")
    shared_memory_region: Any = Field(default=None, description="refused: no memory is shared")


class RequestedOutput(_Request):
    """An output that is wanted."""

    name: str = Field(examples=["mean"])
    parameters: OutputParameters | None = None


class RequestParameters(_Request):
    """Parameters of a request."""

    binary_data_output: bool | None = Field(default=None, description="`binary_data` of outputs that do not say it")


class InferenceRequest(_Request):
    """A request for outputs of a model."""

    id: str | None = Field(default=None, description="comes back in the answer")
    inputs: list[InputTensor]
    outputs: list[RequestedOutput] | None = Field(default=None, description="mean and variance when there are none")
    parameters: RequestParameters | None = None


class IndexRequest(_Request):
    """Which models to list."""

    ready: bool = Field(default=False, description="whether to list only those that are ready")


class BinarySize(_Answer):
    """Parameters of an output that comes after the JSON."""

    binary_data_size: int


class OutputTensor(_Answer):
    """An output, with its numbers either here or after the JSON."""

    name: str = Field(examples=["mean"])
    datatype: Literal["FP32"]
    shape: list[int] = Field(examples=[[1, 2]])
    data: list[float] | None = Field(default=None, description="row-major", examples=[[0.25, -1.5]])
    parameters: BinarySize | None = None


class InferenceResponse(_Answer):
    """Outputs of a model in the order in which they were asked for."""

    model_name: str = Field(examples=["digits"])
    model_version: str = Field(examples=["1"])
    id: str | None = None
    outputs: list[OutputTensor]


class ServerMetadata(_Answer):
    """What the server is."""

    name: Literal["isolatent"]
    version: str
    extensions: list[str] = Field(examples=[["binary_tensor_data"]])


class TensorMetadata(_Answer):
    """An input or output; -1 is a side of any length."""

    name: str
    datatype: Literal["UINT8", "FP32"]
    shape: list[int] = Field(examples=[[-1, 28, 28, 1]])


class ModelMetadata(_Answer):
    """What a model takes and gives."""

    name: str = Field(examples=["digits"])
    versions: list[str] = Field(examples=[["1"]])
    platform: Literal["onnx_onnxv1"]
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(_Answer):
    """The server answers."""

    live: Literal[True]


class Ready(_Answer):
    """The server may be asked."""

    ready: Literal[True]


class ModelReady(_Answer):
    """A model may be asked."""

    name: str
    ready: Literal[True]


class IndexEntry(_Answer):
    """A model in the repository index, as Triton writes it."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class ProtocolError(_Answer):
    """What went wrong, and what to do. The status is that of the same problem elsewhere in this service."""

    error: str
