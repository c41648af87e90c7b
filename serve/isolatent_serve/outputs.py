"""What can be asked of a model: each output is a function of its two graphs, with names, shapes and formulas.

A new output is one function, one entry here and one route.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from isolatent_export import Bundle
from isolatent_export.manifest import Manifest
from isolatent_export.outputs import Array, Graphs, Tensors, chamfer, embedding, posterior, reconstruction

__all__ = [
    "DECODINGS",
    "EMBEDDINGS",
    "POSTERIORS",
    "RECONSTRUCTIONS",
    "Array",
    "Compute",
    "Graphs",
    "Output",
    "Prepare",
    "Shapes",
    "Tensors",
    "always",
    "chamfer",
    "decoding",
    "embedding",
    "posterior",
    "reconstruction",
]

Shapes = dict[str, tuple[int, ...]]

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


def decoding(graphs: Graphs, latents: Array) -> Tensors:
    """The decoder's pixels in 0..1 (N, H, W, C), or points (N, P', 3), for latents (N, d)."""
    return {"decoding": graphs.decode(latents)}


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
