"""A model's graphs behind one worker thread: inference never blocks the event loop and never runs beside itself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from isolatent_export.runtime import OnnxRuntime
from isolatent_serve.admission import Admission
from isolatent_serve.batching import Batch, Job, Queue
from isolatent_serve.outputs import Array, Compute, Tensors


class Engine:
    """Runs computations on the graphs of one model, a stacked array in, tensors with one row per item out.

    Computations treat each row on its own: rows of several requests run together. `queue_items` and `queue_bytes`
    bound what is accepted and not yet done.
    """

    def __init__(self, name: str, *, queue_items: int = 4096, queue_bytes: int = 256 * 2**20) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"model-{name}")
        self._runtime: OnnxRuntime | None = None
        self._admission = Admission(name, queue_items, queue_bytes)
        self._queue = Queue()
        self._lock = threading.Lock()  # of `_queue` and `_busy`
        self._busy = False

    @property
    def ready(self) -> bool:
        """Whether `start` has finished."""
        return self._runtime is not None

    @property
    def provider(self) -> str | None:
        """The execution provider that really runs; None before the engine is ready."""
        return self._runtime.provider if self._runtime else None

    @property
    def waiting(self) -> int:
        """Items accepted and not yet done."""
        return self._admission.items

    async def start(self, load: Callable[[], OnnxRuntime]) -> None:
        """Load the graphs on the worker thread. Raises what `load` raises."""
        self._runtime = await asyncio.get_running_loop().run_in_executor(self._worker, load)

    def require_room(self) -> None:
        """Raise Problem `queue_full` when no further item would be accepted: worth knowing before decoding."""
        self._admission.require_room()

    async def run(self, compute: Compute, items: Array) -> Tensors:
        """`compute` for items (N, ...), N >= 1: tensors (N, ...) in the same order. The engine must be ready.

        Raises Problem `queue_full` at once when the items do not fit into the queue, and what `compute` raises.
        What a cancelled request still had to run is dropped.
        """
        loop = asyncio.get_running_loop()
        with self._admission.held(items):
            job = Job(compute, items, loop.create_future())
            with self._lock:
                self._queue.add(job)
                idle, self._busy = not self._busy, True
            if idle:
                self._worker.submit(self._work, loop)
            return await job.future

    async def close(self) -> None:
        """Wait for the run in progress, drop what is queued and let the thread end."""
        with self._lock:
            self._queue.cancel()
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run batches until the queue is empty. On the worker thread."""
        assert self._runtime is not None
        while batch := self._next():
            began = time.perf_counter()
            batch.run(self._runtime)
            self._admission.observe(batch.size, time.perf_counter() - began)
            loop.call_soon_threadsafe(batch.settle)

    def _next(self) -> Batch | None:
        with self._lock:
            batch = self._queue.next()
            self._busy = batch is not None
            return batch
