"""What can be asked of a model: each output is a function of its two graphs, with names, shapes and formulas.

A new output is one function, one entry here and one route.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isolatent_export.manifest import Manifest

Array = NDArray[Any]
Tensors = dict[str, Array]
"""Name -> float32 array whose first axis counts the items."""
Shapes = dict[str, tuple[int, ...]]


class Graphs(Protocol):
    """The encoder and the decoder of one model."""

    def encode(self, inputs: Array, /) -> tuple[Array, Array]:
        """Items (N, H, W, C) -> mean, log-variance (N, d)."""

    def decode(self, latents: Array, /) -> Array:
        """Latents (N, d) -> reconstructions (N, H, W, C)."""


Compute = Callable[[Graphs, Array], Tensors]


@dataclass(frozen=True, kw_only=True)
class Output:
    """One thing to ask for. `kind` is the `object` member of its results; `shapes` are those of one item."""

    kind: str
    compute: Compute
    shapes: Callable[[Manifest], Shapes]
    options: frozenset[str] = frozenset()
    usage: dict[str, int] = field(default_factory=dict)
    picture: str | None = None
    """The tensor that `Accept: image/png` returns, if any."""


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
    """The decoder's pixels in 0..1 for the posterior mean (N, H, W, C), and the mean squared error per pixel (N,)."""
    mean, _ = graphs.encode(items)
    pixels = graphs.decode(mean)
    difference = items.astype(np.float32) / np.float32(255) - pixels
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.mean(difference**2, axis=tuple(range(1, difference.ndim)), dtype=np.float32)
    return {"reconstruction": pixels, "error": np.asarray(error)}


POSTERIORS = Output(
    kind="posterior",
    compute=posterior,
    shapes=lambda manifest: {"mean": (manifest.latent.size,), "variance": (manifest.latent.size,), "kl": ()},
)

EMBEDDINGS = Output(
    kind="embedding",
    compute=embedding,
    shapes=lambda manifest: {"embedding": (manifest.latent.size,)},
    # What OpenAI's clients send and expect.
    options=frozenset({"dimensions", "user"}),
    usage={"prompt_tokens": 0, "total_tokens": 0},
)

RECONSTRUCTIONS = Output(
    kind="reconstruction",
    compute=reconstruction,
    shapes=lambda manifest: {"reconstruction": manifest.input.shape, "error": ()},
    picture="reconstruction",
)
