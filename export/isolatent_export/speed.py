"""How fast a bundle's graphs run on the CPU of the machine that exported it: medians, recorded in the manifest."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent._machine import cores
from isolatent_export.bundle import Golden
from isolatent_export.manifest import Speed, SpeedRow
from isolatent_export.parity import Engine

BATCHES = (1, 64)

_SECONDS, _RUNS = 0.3, (3, 50)
"""Each graph and batch size runs for about so long, and so many times at least and at most."""


def measure(engine: Engine, golden: Golden, name: str) -> Speed:
    """Median milliseconds per batch of both graphs of `engine`, on golden samples."""
    rows = []
    for batch in BATCHES:
        inputs, latents = _repeated(golden.input, batch), _repeated(golden.mean, batch)
        encode, decode = _median(engine.encode, inputs), _median(engine.decode, latents)
        rows.append(SpeedRow(batch=batch, encode_ms=encode, decode_ms=decode))
    return Speed(engine=name, processor=_processor(), cores=cores(), rows=tuple(rows))


def _repeated(samples: NDArray[Any], count: int) -> NDArray[Any]:
    return np.concatenate([samples] * -(-count // len(samples)))[:count]


def _median(run: Callable[[NDArray[Any]], object], batch: NDArray[Any]) -> float:
    run(batch)  # the first run allocates
    times: list[float] = []
    least, most = _RUNS
    while len(times) < least or (sum(times) < _SECONDS and len(times) < most):
        started = time.perf_counter()
        run(batch)
        times.append(time.perf_counter() - started)
    return round(1000 * statistics.median(times), 4)


def _processor() -> str:
    """The processor's model where Linux tells, its architecture elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
