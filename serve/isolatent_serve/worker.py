"""One life of a model's thread: it loads the graphs, then runs batches, until it is stopped, dies or is given up.

A thread that hangs in native code cannot be ended: it is abandoned, and ends itself when it ever comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

from isolatent_serve.batching import Batch, Job
from isolatent_serve.outputs import Array, Graphs
from isolatent_serve.priority import give_way


class Runtime(Graphs, Protocol):
    """The graphs of a model on a device."""

    @property
    def provider(self) -> str:
        """The execution provider that really runs."""

    @property
    def reason(self) -> str:
        """Why, in one sentence."""

    def prove(self) -> None:
        """Raise when the graphs cannot even run zeros."""


Load = Callable[[], Runtime]


class Keeper(Protocol):
    """Who gives work to a thread and hears how it lives. `next` is called on the thread, the others on the loop's."""

    def next(self, worker: Worker, /) -> Batch | None:
        """What to run now; None when there is nothing until `wake` is called."""

    def ran(self, batch: Batch, seconds: float, /) -> None:
        """A batch is done."""

    def loaded(self, worker: Worker, runtime: Runtime, /) -> None:
        """The graphs are there."""

    def lost(self, worker: Worker, error: BaseException, /) -> None:
        """The thread is at its end."""


class Worker:
    """A thread that begins at once. `delay` are seconds to wait for company when work arrives after a pause."""

    def __init__(self, name: str, load: Load, keeper: Keeper, *, delay: float = 0.0) -> None:
        self._load = load
        self._keeper = keeper
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._batch: Batch | None = None
        self._since = 0.0
        self.abandoned = False
        self.proven = False
        """Whether it has finished a batch."""
        self._thread = threading.Thread(target=self._live, name=f"model-{name}", daemon=True)
        self._thread.start()

    @property
    def jobs(self) -> list[Job]:
        """The requests in its hands."""
        batch = self._batch
        return batch.jobs if batch else []

    @property
    def alive(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()

    def stuck(self, seconds: float) -> bool:
        """Whether one call of a graph, or what follows it, has taken longer than this."""
        return self._batch is not None and time.monotonic() - self._since > seconds

    def hold(self, batch: Batch | None) -> None:
        """What is in its hands from now on."""
        self._since = time.monotonic()
        self._batch = batch

    def wake(self) -> None:
        """There is work after a pause."""
        self._wake.put(True)

    def stop(self) -> None:
        """End after the batch in progress."""
        self._wake.put(False)

    def abandon(self) -> None:
        """Expect nothing more of it; it ends when it can."""
        self.abandoned = True
        self.stop()

    def join(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        self._thread.join(seconds)

    def _live(self) -> None:
        try:
            give_way()  # the threads of the runtime, too
            runtime = self._load()
            self._tell(self._keeper.loaded, self, runtime)
            graphs = _Watched(runtime, self._beat)
            while self._wake.get():
                if self._delay:
                    time.sleep(self._delay)
                while batch := self._keeper.next(self):
                    self._run(batch, graphs, runtime)
        except BaseException as error:  # SystemExit as well: whatever ends this thread must be known
            self._tell(self._keeper.lost, self, error)

    def _run(self, batch: Batch, graphs: Graphs, runtime: Runtime) -> None:
        self._beat()
        began = time.perf_counter()
        well = batch.run(graphs)
        self._beat()
        if not well:
            runtime.prove()
        self.proven = True
        # Before it is out of this thread's hands: somebody answers in any case.
        self._post(self._keeper.ran, batch, time.perf_counter() - began)
        self._batch = None

    def _beat(self) -> None:
        """A sign of life."""
        if self.abandoned:
            raise SystemExit
        self._since = time.monotonic()

    def _tell(self, listener: Callable[..., None], *arguments: Any) -> None:
        if not self.abandoned:
            self._post(listener, *arguments)

    def _post(self, listener: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens
            self._loop.call_soon_threadsafe(listener, *arguments)


class _Watched:
    """Graphs whose calls are signs of life: what hangs is one of them, however many a computation makes."""

    def __init__(self, graphs: Graphs, beat: Callable[[], None]) -> None:
        self._graphs = graphs
        self._beat = beat

    def encode(self, inputs: Array) -> tuple[Array, Array]:
        """As the graphs do."""
        self._beat()
        posterior = self._graphs.encode(inputs)
        self._beat()
        return posterior

    def decode(self, latents: Array) -> Array:
        """As the graphs do."""
        self._beat()
        reconstruction = self._graphs.decode(latents)
        self._beat()
        return reconstruction
