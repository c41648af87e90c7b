"""The answers as types: what /openapi.json says about them. The tests hold real answers against these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from isolatent_export.manifest import InputSpec, Latent, Objective, ReconstructionError

Vector = list[float] | str
"""Numbers, or with encoding_format=base64 the little-endian float32 bytes of them."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ItemError(_Closed):
    """With on_error=item, in the place of an input that could not be used."""

    object: Literal["error"]
    index: int
    code: str = Field(examples=["undecodable"])
    detail: str


class Posterior(_Closed):
    """q(z|x) of one input: a normal distribution with diagonal covariance."""

    object: Literal["posterior"]
    index: int
    mean: Vector = Field(examples=[[0.25, -1.5]])
    variance: Vector = Field(examples=[[0.01, 0.9]])
    kl: float = Field(description="KL(q(z|x) || N(0, I)) in nats", examples=[1.23])


class Embedding(_Closed):
    """The posterior mean of one input."""

    object: Literal["embedding"]
    index: int
    embedding: Vector = Field(examples=[[0.25, -1.5]])


class Reconstruction(_Closed):
    """What the model keeps of one input."""

    object: Literal["reconstruction"]
    index: int
    reconstruction: list[list[list[float]]] | list[list[float]] | str = Field(
        description="pixels (H, W, C) in 0..1, or points (P', 3)", examples=[[[[0.0], [0.98]]]]
    )
    shape: tuple[int, int, int] | tuple[int, int] = Field(examples=[[1, 2, 1]])
    error: float = Field(description="what it is says the model's reconstruction_error", examples=[0.01])


class Decoding(_Closed):
    """What the decoder makes of one latent."""

    object: Literal["decoding"]
    index: int
    decoding: list[list[list[float]]] | list[list[float]] | str = Field(
        description="pixels (H, W, C) in 0..1, or points (P', 3)", examples=[[[[0.0], [0.98]]]]
    )
    shape: tuple[int, int, int] | tuple[int, int] = Field(examples=[[1, 2, 1]])


class Consistency(_Closed):
    """How far the posterior of one input moves under the model's own transformations."""

    object: Literal["consistency"]
    index: int
    kl: float = Field(description="mean KL(q(z|x~) || q(z|x)) in nats", examples=[3.5])
    normalized: float = Field(description="kl over that between different inputs of the model", examples=[0.04])


class Usage(_Closed):
    """How much was asked for."""

    inputs: int = Field(examples=[1])


class EmbeddingUsage(Usage):
    """With the members OpenAI's clients read."""

    prompt_tokens: Literal[0]
    total_tokens: Literal[0]


class _List(_Closed):
    object: Literal["list"]
    model: str = Field(examples=["digits"])
    version: str = Field(examples=["1"])


class PosteriorList(_List):
    """Posteriors in input order."""

    data: list[Posterior | ItemError]
    usage: Usage


class EmbeddingList(_List):
    """Embeddings in input order."""

    data: list[Embedding | ItemError]
    usage: EmbeddingUsage


class ReconstructionList(_List):
    """Reconstructions in input order."""

    data: list[Reconstruction | ItemError]
    usage: Usage


class DecodingList(_List):
    """Decodings in input order."""

    data: list[Decoding | ItemError]
    usage: Usage


class ConsistencyList(_List):
    """Consistencies in input order."""

    data: list[Consistency | ItemError]
    usage: Usage


class RefusedVersion(_Closed):
    """A newer version in the model directory that must not be served."""

    version: str | None = Field(description="its folder; null for a model without version folders", examples=["2"])
    reason: str = Field(examples=["digits/2/encoder.onnx: missing; copy or export the bundle again"])


class ModelFacts(_Closed):
    """One served model."""

    id: str = Field(examples=["digits"])
    object: Literal["model"]
    created: int = Field(description="unix seconds")
    owned_by: Literal["isolatent"]
    version: str
    modality: Literal["image", "point_cloud"]
    provider: str | None = Field(
        description="ONNX Runtime's execution provider in use; null until ready", examples=["CPUExecutionProvider"]
    )
    provider_reason: str | None = Field(description="why this execution provider")
    ready: bool
    input: InputSpec
    latent: Latent
    reconstruction_shape: tuple[int, ...] = Field(examples=[[28, 28, 1]])
    reconstruction_error: ReconstructionError
    objective: Objective
    family: str
    metrics: dict[str, Any]
    transforms: list[dict[str, Any]]
    refused: list[RefusedVersion] = Field(description="what would be served if it were good, the newest first")


class ModelList(_Closed):
    """All served models."""

    object: Literal["list"]
    data: list[ModelFacts]


class Status(_Closed):
    """That the service answers."""

    status: Literal["ok"]


class ReadyModel(_Closed):
    """A model that serves, and on what."""

    id: str
    version: str
    provider: str = Field(examples=["CPUExecutionProvider"])
    provider_reason: str = Field(description="why this execution provider")


class Readiness(_Closed):
    """That every model may be asked."""

    status: Literal["ready"]
    models: list[ReadyModel]


class PlacedError(_Closed):
    """One thing that is wrong, and where in the request."""

    pointer: str = Field(examples=["/input/3"])
    detail: str


class ProblemDetails(BaseModel):
    """RFC 9457. /v1/embeddings and /v1/models add OpenAI's member `error`."""

    type: str = Field(examples=["urn:isolatent:problem:undecodable"])
    title: str
    status: int = Field(examples=[422])
    detail: str
    code: str = Field(examples=["undecodable"])
    request_id: str
    errors: list[PlacedError] = []
