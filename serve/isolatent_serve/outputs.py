"""What can be asked of a model: each output is a function of its two graphs, with names, shapes and formulas.

A new output is one function, one entry here and one route.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isolatent_export import Bundle
from isolatent_export.manifest import Manifest

Array = NDArray[Any]
Tensors = dict[str, Array]
"""Name -> float32 array whose first axis counts the items."""
Shapes = dict[str, tuple[int, ...]]

_STRIP = 2**17
"""Distances in hand at a time: 1 MiB, which stays in the cache."""


class Graphs(Protocol):
    """The encoder and the decoder of one model."""

    def encode(self, inputs: Array, /) -> tuple[Array, Array]:
        """Items (N, H, W, C) or (N, P, 3) -> mean, log-variance (N, d)."""

    def decode(self, latents: Array, /) -> Array:
        """Latents (N, d) -> reconstructions (N, H, W, C) or (N, P', 3)."""


Compute = Callable[[Graphs, Array], Tensors]
Prepare = Callable[[Bundle, int], Compute]
"""(bundle, samples) -> the computation for its model: equal ones may run on rows of several requests together."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """One thing to ask for. `kind` is the `object` member of its results; `shapes` are those of one item."""

    kind: str
    prepare: Prepare
    shapes: Callable[[Manifest], Shapes]
    options: frozenset[str] = frozenset()
    usage: dict[str, int] = field(default_factory=dict)
    array: str | None = None
    """The tensor that formats of one tensor carry, if any."""
    of_latents: bool = False
    """Whether it is asked of latents, which are numbers only, and not of the items that the model encodes."""
    is_like_input: bool = False
    """Whether one row of `array` can be written to a file of the input's kind: a picture or a cloud."""


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


def decoding(graphs: Graphs, latents: Array) -> Tensors:
    """The decoder's pixels in 0..1 (N, H, W, C), or points (N, P', 3), for latents (N, d)."""
    return {"decoding": graphs.decode(latents)}


def _pixel_error(items: Array, rebuilt: Array) -> Array:
    difference = items.astype(np.float32) / np.float32(255) - rebuilt
    return np.asarray(np.mean(difference**2, axis=(1, 2, 3), dtype=np.float32))


def _point_error(items: Array, rebuilt: Array) -> Array:
    return np.array([chamfer(*pair) for pair in zip(items, rebuilt, strict=True)], np.float32)


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


def always(compute: Compute) -> Prepare:
    """`compute`, whatever the model."""
    return lambda _bundle, _samples: compute


POSTERIORS = Output(
    kind="posterior",
    prepare=always(posterior),
    shapes=lambda manifest: {"mean": (manifest.latent.size,), "variance": (manifest.latent.size,), "kl": ()},
)

EMBEDDINGS = Output(
    kind="embedding",
    prepare=always(embedding),
    shapes=lambda manifest: {"embedding": (manifest.latent.size,)},
    array="embedding",
    # What OpenAI's clients send and expect.
    options=frozenset({"dimensions", "user"}),
    usage={"prompt_tokens": 0, "total_tokens": 0},
)

RECONSTRUCTIONS = Output(
    kind="reconstruction",
    prepare=always(reconstruction),
    shapes=lambda manifest: {"reconstruction": manifest.reconstruction_shape, "error": ()},
    array="reconstruction",
    is_like_input=True,
)

DECODINGS = Output(
    kind="decoding",
    prepare=always(decoding),
    shapes=lambda manifest: {"decoding": manifest.reconstruction_shape},
    array="decoding",
    of_latents=True,
    is_like_input=True,
)
