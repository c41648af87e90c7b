"""What the client returns: posteriors, models, and what jobs are made of, as immutable values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isolatent import _distances

__all__ = [
    "Distance",
    "JobCounts",
    "JobFormat",
    "JobItemError",
    "JobOutput",
    "JobRow",
    "JobState",
    "Model",
    "Posterior",
    "StoredFile",
]

Distance = Literal["wasserstein2", "symmetric_kl", "bhattacharyya"]
JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
JobFormat = Literal["parquet", "jsonl"]
JobOutput = Literal["posterior", "embedding", "reconstruction_error", "consistency"]


@dataclass(frozen=True, eq=False)
class Posterior:
    """The diagonal Gaussian N(mean, variance) that an encoder gives for one input.

    mean and variance are read-only float32 arrays of shape (d,). `kl` is KL(q(z|x) || N(0, I)) in nats, as the service
    computed it. Equal when every bit of the numbers, the model and its version are.
    """

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    kl: float
    model: str
    version: str

    def __post_init__(self) -> None:
        """Raise ValueError unless mean and variance are vectors of one length."""
        object.__setattr__(self, "mean", _read_only(self.mean))
        object.__setattr__(self, "variance", _read_only(self.variance))
        object.__setattr__(self, "kl", float(self.kl))
        if self.mean.ndim != 1 or self.mean.shape != self.variance.shape:
            raise ValueError(f"mean {self.mean.shape} and variance {self.variance.shape}, expected (d,) and (d,)")

    @property
    def std(self) -> NDArray[np.float32]:
        """Standard deviation of each dimension, (d,) float32."""
        deviation: NDArray[np.float32] = np.sqrt(self.variance)
        return deviation

    def sample(self, n: int = 1, seed: int | None = None) -> NDArray[np.float32]:
        """`n` draws z = mean + std * epsilon, (n, d) float32; the same draws for the same seed."""
        noise = np.random.default_rng(seed).standard_normal((n, len(self.mean)), np.float32)
        draws: NDArray[np.float32] = self.mean + self.std * noise
        return draws

    @overload
    def distance(self, other: Posterior, metric: Distance = ...) -> float: ...
    @overload
    def distance(self, other: Sequence[Posterior], metric: Distance = ...) -> NDArray[np.float64]: ...
    def distance(
        self, other: Posterior | Sequence[Posterior], metric: Distance = "wasserstein2"
    ) -> float | NDArray[np.float64]:
        """How far apart two posteriors of one model are: 0 for equal ones, symmetric, computed in float64.

        Of a sequence of N posteriors the distance to each, (N,). With m, v, s the means, variances and standard
        deviations, and sums over the d dimensions:

            wasserstein2    sqrt(sum((m1 - m2)^2 + (s1 - s2)^2)), in latent units (Olkin & Pukelsheim 1982)
            symmetric_kl    (KL(1 || 2) + KL(2 || 1)) / 2, in nats (Jeffreys 1946)
                            = sum((v1 + (m1 - m2)^2) / v2 + (v2 + (m1 - m2)^2) / v1 - 2) / 4
            bhattacharyya   -log of the integral of sqrt(q1 q2), in nats (Bhattacharyya 1943; Kailath 1967)
                            = sum((m1 - m2)^2 / (v1 + v2)) / 4 + sum(log((v1 + v2) / (2 s1 s2))) / 2

        Raises ValueError for another metric, and for posteriors of different models or versions: their axes differ.
        """
        if metric not in _distances.METRICS:
            raise ValueError(f"no distance {metric!r}; there are {', '.join(_distances.METRICS)}")
        others = [other] if isinstance(other, Posterior) else list(other)
        for each in others:
            if (self.model, self.version) != (each.model, each.version):
                raise ValueError(
                    f"posteriors of {self.model} {self.version} and {each.model} {each.version} have different axes; "
                    "compare posteriors of one model and version"
                )
        shape = len(others), len(self.mean)
        mean = np.reshape([each.mean for each in others], shape)  # (N, d)
        variance = np.reshape([each.variance for each in others], shape)
        found = _distances.METRICS[metric](self.mean, self.variance, mean, variance)  # (N,)
        return float(found[0]) if isinstance(other, Posterior) else found

    def __eq__(self, other: object) -> bool:
        """Equal numbers, model and version."""
        if not isinstance(other, Posterior):
            return NotImplemented
        return (
            (self.kl, self.model, self.version) == (other.kl, other.model, other.version)
            and np.array_equal(self.mean, other.mean)
            and np.array_equal(self.variance, other.variance)
        )

    def __hash__(self) -> int:
        """Agrees with equality."""
        return hash((self.kl, self.model, self.version, self.mean.shape))

    def __reduce__(self) -> tuple[Any, ...]:
        """Through the constructor, so that the arrays of a copy are read-only too."""
        return Posterior, (self.mean, self.variance, self.kl, self.model, self.version)


def _read_only(values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values, np.float32)
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


@dataclass(frozen=True)
class Model:
    """One model that a service offers."""

    id: str
    """The name to pass as `model=`."""
    version: str
    modality: str
    """What it takes: `image` or `point_cloud`."""
    provider: str | None
    """The execution provider in use, such as CPUExecutionProvider; None until the model is ready."""
    ready: bool
    input: Mapping[str, Any] = field(hash=False)
    """What one input becomes before the encoder. For images: height, width, channels, resize and fill. For point
    clouds: points, how many it is sampled to; sampling, random or farthest; normalization, unit_sphere,
    principal or none."""
    latent_size: int
    """d, the length of every embedding, mean and variance."""
    reconstruction_shape: tuple[int, ...]
    """Of one reconstruction or decoding: (H, W, C), or (P', 3)."""
    metrics: Mapping[str, Any] = field(repr=False, hash=False)
    """What was measured when the model was evaluated."""
    facts: Mapping[str, Any] = field(repr=False, compare=False)
    """All that the service says about the model, as in the JSON answer."""

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Model:
        """The model that one entry of /v1/models describes. Raises KeyError or TypeError when it says too little."""
        return cls(
            id=facts["id"],
            version=facts["version"],
            modality=facts["modality"],
            provider=facts["provider"],
            ready=facts["ready"],
            input=facts["input"],
            latent_size=facts["latent"]["size"],
            reconstruction_shape=tuple(facts.get("reconstruction_shape", ())),
            metrics=facts.get("metrics", {}),
            facts=facts,
        )


@dataclass(frozen=True)
class StoredFile:
    """A file that was uploaded for jobs. The service deletes it at `expires_at`."""

    id: str
    filename: str
    bytes: int
    sha256: str
    created_at: datetime
    expires_at: datetime | None

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> StoredFile:
        """The file that the service describes. Raises KeyError, TypeError or ValueError when it says too little."""
        return cls(
            id=facts["id"],
            filename=facts["filename"],
            bytes=facts["bytes"],
            sha256=facts["sha256"],
            created_at=datetime.fromisoformat(facts["created_at"]),
            expires_at=datetime.fromisoformat(facts["expires_at"]) if facts.get("expires_at") else None,
        )


@dataclass(frozen=True)
class JobCounts:
    """How far a job is. `total` is None until its inputs are listed."""

    total: int | None
    succeeded: int
    failed: int


@dataclass(frozen=True, eq=False)
class JobRow:
    """The results for one input of a job; what was not asked for is None."""

    id: str
    """The input's name: its path within the folder or archive, or its id in the table."""
    posterior: Posterior
    embedding: NDArray[np.float32] | None = None
    """(d,)"""
    reconstruction_error: float | None = None
    consistency: NDArray[np.float32] | None = None
    """(2,): how far the posterior moves, in nats and normalized; see `Client.consistency`."""


@dataclass(frozen=True)
class JobItemError:
    """An input of a job that has no results: its name and place in the job, a stable code and the reason."""

    id: str
    index: int
    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.id}: {self.code}: {self.detail}"
