"""What manifest.json says: the typed schema of a bundle's facts.

Unknown members are refused, so that a manifest of a newer schema is never half understood.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

SCHEMA_VERSION = 1

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""Names appear in URLs, file names and metrics labels."""


class Facts(BaseModel):
    """Base of every part of the manifest: immutable and closed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageInput(Facts):
    """What one image must become before the encoder: uint8 pixels (height, width, channels), 0 to 255."""

    modality: Literal["image"] = "image"
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Literal[1, 3]
    resize: Literal["fit", "stretch", "crop"] = "fit"
    """fit: keep the aspect ratio and pad with `fill`; stretch: ignore it; crop: fill the frame and cut the overhang."""
    fill: int = Field(default=0, ge=0, le=255)
    """Grey level behind transparent pixels and beside fitted images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of one decoded item."""
        return self.height, self.width, self.channels


class PointCloudInput(Facts):
    """What one point cloud must become before the encoder: float32 points (points, 3), normalised.

    Normalised in float64 before they become float32: scans in national grids have coordinates of several million.
    """

    modality: Literal["point_cloud"] = "point_cloud"
    points: int = Field(ge=8, le=65_536)
    """P: larger clouds are sampled down to it, meshes are sampled on their surface, smaller clouds repeat points."""
    normalization: Literal["unit_sphere", "principal", "none"] = "unit_sphere"
    """unit_sphere: the mean of the P points moves to the origin and the farthest of them to distance 1. principal: the
    same, and the cloud is turned so that its variance falls from x to z and its skewness along each axis is positive:
    for objects in arbitrary poses. An object and its mirror image then become the same."""
    sampling: Literal["random", "farthest"] = "random"
    """How a larger cloud is sampled down: uniformly, or each point the one farthest from those chosen before. Either
    way the same input gives the same points."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (P, 3) of one decoded item."""
        return self.points, 3


InputSpec = Annotated[ImageInput | PointCloudInput, Field(discriminator="modality")]


def input_spec(facts: Any) -> InputSpec:
    """The input specification that JSON-ready `facts` state. Raises pydantic's ValidationError."""
    spec: InputSpec = TypeAdapter(InputSpec).validate_python(facts)
    return spec


ReconstructionError = Literal[
    "mean squared error per pixel, pixels in 0..1",
    "Chamfer distance: mean squared distance to the nearest point, both directions summed, normalised points",
]


Precision = Literal["fp32", "fp16"]


class LatentGroup(Facts):
    """One group of latent variables, in the order of the mean vector."""

    name: str
    size: int = Field(ge=1)


class Latent(Facts):
    """The latent space: `size` numbers, split into groups; the embedding is the posterior mean."""

    size: int = Field(ge=1)
    groups: tuple[LatentGroup, ...]
    embedding: Literal["mean"] = "mean"


class Objective(Facts):
    """What was optimised. Every term in nats, summed over pixels or dimensions, averaged over the batch."""

    arm: Literal["base", "augmentation", "cr", "triplet"]
    bound: Literal["elbo", "iwae"]
    likelihood: str
    consistency_weight: float
    """lambda, the weight of KL(q(z|x~) || q(z|x)), or of the triplet loss; 0 for `base` and `augmentation`."""
    beta: float
    samples: int


class Training(Facts):
    """Where the weights come from."""

    data: str
    data_sha256: str | None
    """Over the inputs and labels of every split in order; None where unknown."""
    examples: dict[str, int]
    """Number of examples per split."""
    epochs: int
    updates: int
    seed: int
    git_revision: str | None


Allowed = Annotated[float, Field(gt=0, le=0.05, allow_inf_nan=False)]
"""At most ten times what half precision is allowed: with more, golden outputs would say nothing."""


class Tolerance(Facts):
    """Largest absolute difference from the training framework that is accepted, per output."""

    mean: Allowed = 1e-5
    log_variance: Allowed = 1e-5
    reconstruction: Allowed = 1e-5


class ParityRow(Facts):
    """Measured largest absolute differences of one engine at one batch size from the golden outputs."""

    engine: str
    batch: int
    mean: float
    log_variance: float
    reconstruction: float


class SpeedRow(Facts):
    """Median milliseconds that one batch takes."""

    batch: int
    encode_ms: float
    decode_ms: float


class Speed(Facts):
    """How fast the graphs ran on the machine that exported them, with so many threads as it has cores."""

    engine: str
    processor: str
    cores: int
    rows: tuple[SpeedRow, ...]


class FileFact(Facts):
    """Identity of one file of the bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Manifest(Facts):
    """Everything a user of the bundle may rely on."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    version: str = Field(pattern=NAME_PATTERN)
    created: AwareDatetime
    modality: Literal["image", "point_cloud"]
    family: str
    precision: Precision = "fp32"
    """Type of the weights in the ONNX graphs. fp16 spares the heads of log-variances, and inputs and outputs."""
    objective: Objective
    input: InputSpec
    latent: Latent
    reconstruction_shape: tuple[int, ...]
    """Shape of one reconstruction: (H, W, C) pixels in 0..1, or (P', 3) points in the frame of the decoded input."""
    reconstruction_error: ReconstructionError
    transforms: tuple[dict[str, JsonValue], ...]
    """The semantics-preserving transformations the model was trained with, as configured."""
    training: Training
    metrics: dict[str, JsonValue]
    tools: dict[str, str]
    tolerance: Tolerance
    parity: tuple[ParityRow, ...]
    speed: Speed | None = None
    files: dict[str, FileFact]
    """Every file of the bundle but the manifest itself."""

    def public(self) -> dict[str, Any]:
        """The facts as JSON-ready values, in the order of the schema."""
        return self.model_dump(mode="json")
