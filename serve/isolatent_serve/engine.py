"""A model's graphs behind one worker thread: inference never blocks the event loop and never runs beside itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from isolatent_export.runtime import OnnxRuntime
from isolatent_serve.outputs import Array, Compute, Tensors

CHUNK = 64
"""Items per run: large requests take turns with small ones, and memory stays bounded."""


class Engine:
    """Runs computations on the graphs of one model, a stacked array in, tensors with one row per item out."""

    def __init__(self, name: str) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"model-{name}")
        self._runtime: OnnxRuntime | None = None

    @property
    def ready(self) -> bool:
        """Whether `start` has finished."""
        return self._runtime is not None

    @property
    def provider(self) -> str | None:
        """The execution provider that really runs; None before the engine is ready."""
        return self._runtime.provider if self._runtime else None

    async def start(self, load: Callable[[], OnnxRuntime]) -> None:
        """Load the graphs on the worker thread. Raises what `load` raises."""
        self._runtime = await asyncio.get_running_loop().run_in_executor(self._worker, load)

    async def run(self, compute: Compute, items: Array) -> Tensors:
        """`compute` for items (N, ...), N >= 1: tensors (N, ...) in the same order. The engine must be ready.

        Between chunks other requests get their turn; a request that was cancelled stops there.
        """
        runtime, loop = self._runtime, asyncio.get_running_loop()
        assert runtime is not None
        chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
        done = [await loop.run_in_executor(self._worker, compute, runtime, chunk) for chunk in chunks]
        if len(done) == 1:
            return done[0]
        return {name: np.concatenate([tensors[name] for tensors in done]) for name in done[0]}

    async def close(self) -> None:
        """Wait for the run in progress and let the thread end."""
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)
