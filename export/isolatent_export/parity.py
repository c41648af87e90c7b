"""Parity: how far an engine's outputs are from the golden outputs of the training framework.

Log-variances are compared, not variances: a variance may be e^10 and its absolute error says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isolatent_export.bundle import Golden
from isolatent_export.manifest import ParityRow, Tolerance

BATCHES = (1, 2, 7)
"""Batch sizes at which an engine must agree: the traced example's size is one of them, two are not."""

Array = NDArray[Any]


class Engine(Protocol):
    """Anything that runs a bundle's two graphs."""

    def encode(self, inputs: Array, /) -> tuple[Array, Array]:
        """Items (N, ...) -> mean, log-variance (N, d)."""

    def decode(self, latents: Array, /) -> Array:
        """Latents (N, d) -> reconstructions (N, ...)."""


def measure(engine: Engine, golden: Golden, name: str, sizes: Iterable[int] = ()) -> tuple[ParityRow, ...]:
    """Run every golden sample at each batch size of `BATCHES` and `sizes` and return the largest absolute differences.

    Larger batches than there are samples have them more than once.
    """
    batches = sorted({*BATCHES, *sizes})
    return tuple(_at_batch(engine, repeated(golden, batch), name, batch) for batch in batches)


def excess(rows: Iterable[ParityRow], tolerance: Tolerance) -> list[str]:
    """What is outside tolerance, in words; empty when all is well. NaN and infinity are outside."""
    return [
        f"{row.engine}, batch {row.batch}: {output} differs by {getattr(row, output):.3g}, allowed {allowed:.3g}"
        for row in rows
        for output, allowed in tolerance.model_dump().items()
        if not getattr(row, output) <= allowed < math.inf
    ]


def _at_batch(engine: Engine, golden: Golden, name: str, batch: int) -> ParityRow:
    worst = {"mean": 0.0, "log_variance": 0.0, "reconstruction": 0.0}
    for start in range(0, len(golden.input), batch):
        part = slice(start, start + batch)
        if start > 0 and len(golden.input[part]) < batch:
            part = slice(len(golden.input) - batch, None)  # a full last batch: overlap instead of a smaller one
        mean, log_variance = engine.encode(golden.input[part])
        outputs = {"mean": mean, "log_variance": log_variance, "reconstruction": engine.decode(golden.mean[part])}
        for output, got in outputs.items():
            worst[output] = max(worst[output], _distance(got, getattr(golden, output)[part]))
    return ParityRow(engine=name, batch=batch, **worst)


def repeated(golden: Golden, least: int) -> Golden:
    """The samples, from the beginning again until there are `least` of them."""
    if len(golden.input) >= least:
        return golden
    places = np.resize(np.arange(len(golden.input)), least)
    return Golden(*(getattr(golden, each.name)[places] for each in fields(golden)))


def _distance(got: Array, expected: Array) -> float:
    """The largest absolute difference; infinite, and never NaN, where either side is not finite."""
    if got.shape != expected.shape or not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return math.inf
    return float(np.abs(got.astype(np.float64) - expected).max())
