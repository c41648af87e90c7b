"""What the client returns: posteriors and models, as immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Distance", "Model", "Posterior"]

Distance = Literal["wasserstein2", "symmetric_kl", "bhattacharyya"]


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

    def distance(self, other: Posterior, kind: Distance = "wasserstein2") -> float:
        """How far apart two posteriors of one model are: 0 for equal ones, symmetric, computed in float64.

        With m, v, s the means, variances and standard deviations, sums over the d dimensions:

            wasserstein2    sqrt(sum((m1 - m2)^2 + (s1 - s2)^2)), in latent units (Olkin & Pukelsheim 1982)
            symmetric_kl    (KL(1 || 2) + KL(2 || 1)) / 2
                            = sum((v1 + (m1 - m2)^2) / v2 + (v2 + (m1 - m2)^2) / v1 - 2) / 4, in nats (Jeffreys 1946)
            bhattacharyya   sum((m1 - m2)^2 / (v1 + v2)) / 4 + sum(log((v1 + v2) / (2 s1 s2))) / 2, in nats

        Raises ValueError for another kind, and for posteriors of different models or versions: their axes differ.
        """
        if (self.model, self.version) != (other.model, other.version):
            raise ValueError(
                f"posteriors of {self.model} {self.version} and {other.model} {other.version} have different axes; "
                "compare posteriors of one model and version"
            )
        m1, v1 = self.mean.astype(np.float64), self.variance.astype(np.float64)
        m2, v2 = other.mean.astype(np.float64), other.variance.astype(np.float64)
        squared = (m1 - m2) ** 2
        match kind:
            case "wasserstein2":
                return float(np.sqrt(np.sum(squared + (np.sqrt(v1) - np.sqrt(v2)) ** 2)))
            case "symmetric_kl":
                return float(np.sum((v1 + squared) / v2 + (v2 + squared) / v1 - 2) / 4)
            case "bhattacharyya":
                total = v1 + v2
                return float(np.sum(squared / total) / 4 + np.sum(np.log(total / (2 * np.sqrt(v1 * v2)))) / 2)
        raise ValueError(f"no distance {kind!r}; there are wasserstein2, symmetric_kl and bhattacharyya")

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
            metrics=facts.get("metrics", {}),
            facts=facts,
        )
