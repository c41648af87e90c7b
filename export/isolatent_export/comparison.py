"""Two bundles side by side: how far apart their posteriors of the same inputs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.manifest import Tolerance
from isolatent_export.parity import Engine

Array = NDArray[Any]

_BATCH = 32


@dataclass(frozen=True)
class Comparison:
    """Over all inputs: the largest absolute differences, the least similar embeddings, the divergence of posteriors."""

    inputs: int
    mean: float
    log_variance: float
    cosine_min: float
    cosine_mean: float
    kl_mean: float
    """Of KL(a || b), nats summed over the latent variables."""
    kl_max: float
    tolerance: Tolerance
    """The wider of the bundles' own, per output."""

    @property
    def same(self) -> bool:
        """Whether means and log-variances agree within the tolerance; NaN does not."""
        return self.mean <= self.tolerance.mean and self.log_variance <= self.tolerance.log_variance


def require_comparable(first: Bundle, second: Bundle) -> None:
    """Raise BundleError unless both take the same inputs and put out as many latent variables."""
    a, b = first.manifest, second.manifest
    if a.input != b.input:
        raise BundleError(f"{first.path} and {second.path} take different inputs: {a.input!r} and {b.input!r}")
    if a.latent.size != b.latent.size:
        raise BundleError(f"{first.path} has {a.latent.size} latent variables, {second.path} {b.latent.size}")


def compare(first: Engine, second: Engine, inputs: Array, tolerances: tuple[Tolerance, Tolerance]) -> Comparison:
    """Encode `inputs` (N, ...) with both, N at least 1, and compare. Log-variances, as variances span many decades."""
    (mean, log_variance), (other_mean, other_log_variance) = (_encode(engine, inputs) for engine in (first, second))
    kl = _kl(mean, log_variance, other_mean, other_log_variance)
    cosine = _cosine(mean, other_mean)
    return Comparison(
        inputs=len(inputs),
        mean=float(np.abs(mean - other_mean).max()),
        log_variance=float(np.abs(log_variance - other_log_variance).max()),
        cosine_min=float(cosine.min()),
        cosine_mean=float(cosine.mean()),
        kl_mean=float(kl.mean()),
        kl_max=float(kl.max()),
        tolerance=widest(*tolerances),
    )


def widest(*tolerances: Tolerance) -> Tolerance:
    """The largest of each member."""
    return Tolerance(**{name: max(getattr(each, name) for each in tolerances) for name in Tolerance.model_fields})


def _encode(engine: Engine, inputs: Array) -> tuple[Array, Array]:
    """Mean and log-variance (N, d) in float64: differences of 1e-7 must not drown in the arithmetic of comparing."""
    parts = [engine.encode(inputs[start : start + _BATCH]) for start in range(0, len(inputs), _BATCH)]
    mean, log_variance = (np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True))
    return mean, log_variance


def _kl(mean: Array, log_variance: Array, other_mean: Array, other_log_variance: Array) -> Array:
    """KL(q || q') of diagonal Gaussians (N, d), in nats: (N,)."""
    gap = other_log_variance - log_variance
    terms = gap + np.expm1(-gap) + (mean - other_mean) ** 2 * np.exp(-other_log_variance)
    return np.asarray(0.5 * terms.sum(axis=1))


def _cosine(left: Array, right: Array) -> Array:
    """Cosine of the angle between rows (N, d): (N,). Two zero vectors count as the same."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = (left * right).sum(axis=1)
    return np.asarray(np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), (left == right).all(axis=1)))
