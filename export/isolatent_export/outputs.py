"""What can be asked of a model, as functions of its two graphs: posterior, embedding, reconstruction.

The service and TorchServe's handler share them, so that both give the same numbers for the same outputs of the graphs.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = dict[str, Array]
"""Name -> float32 array whose first axis counts the items."""

_STRIP = 2**17
"""Distances in hand at a time: 1 MiB, which stays in the cache."""


class Graphs(Protocol):
    """The encoder and the decoder of one model."""

    def encode(self, inputs: Array, /) -> tuple[Array, Array]:
        """Items (N, H, W, C) or (N, P, 3) -> mean, log-variance (N, d)."""

    def decode(self, latents: Array, /) -> Array:
        """Latents (N, d) -> reconstructions (N, H, W, C) or (N, P', 3)."""


def posterior(graphs: Graphs, items: Array) -> Tensors:
    """q(z|x): mean and variance (N, d), and KL(q(z|x) || N(0, I)) in nats (N,)."""
    mean, log_variance = graphs.encode(items)
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are found, and named, afterwards
        variance = np.exp(log_variance)
        kl = 0.5 * np.sum(mean**2 + variance - 1 - log_variance, axis=1, dtype=np.float32)
    return {"mean": mean, "variance": variance, "kl": np.asarray(kl)}


def embedding(graphs: Graphs, items: Array) -> Tensors:
    """The posterior mean (N, d): deterministic."""
    mean, _ = graphs.encode(items)
    return {"embedding": mean}


def reconstruction(graphs: Graphs, items: Array) -> Tensors:
    """The decoder's pixels in 0..1 (N, H, W, C), or points (N, P', 3), for the posterior mean, and the error (N,).

    Of pixels the mean squared error, of points the Chamfer distance.
    """
    mean, _ = graphs.encode(items)
    rebuilt = graphs.decode(mean)
    with np.errstate(over="ignore", invalid="ignore"):
        error = _pixel_error(items, rebuilt) if items.ndim == 4 else _point_error(items, rebuilt)
    return {"reconstruction": rebuilt, "error": error}


def finite(tensors: Tensors) -> NDArray[np.bool_]:
    """For each item (N,), whether all its numbers are finite."""
    rows = [np.isfinite(tensor).all(axis=tuple(range(1, tensor.ndim))) for tensor in tensors.values()]
    every: NDArray[np.bool_] = np.logical_and.reduce(rows)
    return every


def chamfer(points: Array, others: Array) -> float:
    """Mean squared distance to the nearest point of the other cloud, both directions summed; (P, 3), (P', 3).

    In float64 and in strips of bounded memory: |p - q|^2 = |p|^2 - 2 p.q + |q|^2 as one matrix product.
    """
    centre = points.mean(axis=0, dtype=np.float64)
    p, q = points - centre, others - centre
    left = np.column_stack([-2 * p, (p**2).sum(axis=1), np.ones(len(p))])
    right = np.ascontiguousarray(np.column_stack([q, np.ones(len(q)), (q**2).sum(axis=1)]).T)
    there, back = np.empty(len(p)), np.full(len(q), np.inf)
    rows = max(1, _STRIP // len(q))
    for start in range(0, len(p), rows):
        distances = left[start : start + rows] @ right  # (rows, P')
        there[start : start + rows] = distances.min(axis=1)
        np.minimum(back, distances.min(axis=0), out=back)
    return float(there.clip(0).mean() + back.clip(0).mean())  # rounding makes some of the zeros negative


def _pixel_error(items: Array, rebuilt: Array) -> Array:
    difference = items.astype(np.float32) / np.float32(255) - rebuilt
    return np.asarray(np.mean(difference**2, axis=(1, 2, 3), dtype=np.float32))


def _point_error(items: Array, rebuilt: Array) -> Array:
    return np.array([chamfer(*pair) for pair in zip(items, rebuilt, strict=True)], np.float32)
