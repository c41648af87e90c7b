"""A model's graphs behind one worker thread: inference never blocks the event loop and never runs beside itself.

The thread is supervised. When it dies, or hangs, the requests in its hands and in its queue are answered with 503 and
another thread loads and verifies the model again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

from isolatent_serve.admission import Admission
from isolatent_serve.batching import Answer, Batch, Job, Queue
from isolatent_serve.observing import Observer, Silence
from isolatent_serve.outputs import Array, Compute, Tensors
from isolatent_serve.problems import Problem
from isolatent_serve.worker import Load, Runtime, Worker

OnFailure = Callable[[Exception], None]
"""Told why a model must not be served, or cannot be any more."""
Health = Literal["starting", "ready", "restarting", "failed"]

BACKOFF_SECONDS = 0.1
"""Time before the first new thread; four times as long before each that follows without a batch done."""
MOST_FAILURES = 5
"""Threads lost in a row, without a batch done, after which no other is tried."""
MOST_ABANDONED = 3
"""Threads that hang, each with the memory of a model, after which no other is tried."""

_CLOSE_SECONDS = 10.0

log = logging.getLogger("isolatent_serve")


class EngineError(Exception):
    """The model cannot be run any more by this process."""


def _put(future: asyncio.Future[Tensors], outcome: Tensors | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _log_failure(error: Exception) -> None:
    log.error("%s", error)


class Engine:
    """Runs computations on the graphs of one model, a stacked array in, tensors with one row per item out.

    Computations treat each row on its own: rows of several requests run together. `queue_items` and `queue_bytes`
    bound what is accepted and not yet done. A call of a graph that takes `stuck_seconds` means that the thread hangs.
    `delay_seconds` is how long work that arrives after a pause waits for company. `on_failure` hears of it, once, when
    the model is given up.
    """

    def __init__(
        self,
        name: str,
        *,
        queue_items: int = 4096,
        queue_bytes: int = 256 * 2**20,
        stuck_seconds: float = 60.0,
        delay_seconds: float = 0.0,
        metrics: Observer | None = None,
        on_failure: OnFailure = _log_failure,
    ) -> None:
        self._name = name
        self._stuck_seconds = stuck_seconds
        self._delay = delay_seconds
        self._observer = metrics or Silence()
        self._on_failure = on_failure
        self._admission = Admission(name, queue_items, queue_bytes)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue = Queue()
        self._lock = threading.Lock()  # of `_queue` and `_busy`
        self._busy = False
        self._health: Health = "starting"
        self._runtime: Runtime | None = None
        self._worker: Worker | None = None
        self._abandoned: list[Worker] = []
        self._failures = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def health(self) -> Health:
        """Whether the model can be run now, will be, or will not be any more."""
        return self._health

    @property
    def ready(self) -> bool:
        """Whether the model can be run now."""
        return self._health == "ready"

    @property
    def provider(self) -> str | None:
        """The execution provider that really runs; None while the engine is not ready."""
        return self._runtime.provider if self._runtime else None

    @property
    def reason(self) -> str | None:
        """Why this provider, in one sentence; None while the engine is not ready."""
        return self._runtime.reason if self._runtime else None

    @property
    def waiting(self) -> int:
        """Items accepted and not yet done."""
        return self._admission.items

    async def start(self, load: Load) -> None:
        """Load the graphs on the worker thread, now and whenever it is replaced. Raises what `load` raises, now."""
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._begin()
        self._watch()
        await self._started

    def expecting(self) -> AbstractContextManager[None]:
        """Keep a place in the queue for a request while it is decoded: what is accepted there is bounded, too.

        Raises Problem `queue_full` at once when there is none.
        """
        return self._admission.expected()

    def require_room(self) -> None:
        """Raise Problem `queue_full` when the queue has no place for anything."""
        self._admission.require_room()

    async def run(self, compute: Compute, items: Array) -> Tensors:
        """`compute` for items (N, ...), N >= 1: tensors (N, ...) in the same order.

        Raises what `submit` raises and answers. What a cancelled request still had to run is dropped.
        """
        future: asyncio.Future[Tensors] = self._loop.create_future()
        job = self.submit(compute, items, partial(_put, future))
        try:
            return await future
        finally:
            self.drop(job)

    def submit(self, compute: Compute, items: Array, answer: Answer) -> Job:
        """Let `compute` be run for items (N, ...), N >= 1, and `answer` be called with what comes of it, later.

        It gets tensors (N, ...) in the same order, what `compute` raises, or Problem `worker_lost` when the thread is
        lost before. Raises Problem `queue_full` at once when the items do not fit into the queue.
        """
        if self._worker is None or self._health != "ready":
            raise self._lost("is not there")
        self._admission.take(items)
        self._running += 1
        self._idle.clear()
        job = Job(compute, items, answer)
        with self._lock:
            self._queue.add(job)
            was_idle, self._busy = not self._busy, True
        if was_idle:
            self._worker.wake()
        return job

    def drop(self, job: Job) -> None:
        """Nobody waits for `job` any more, if it is not over: what it still had to run is not."""
        if job.is_over:
            return
        job.is_over = True
        self._admission.release(job.items)
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def drain(self) -> None:
        """Wait until nothing that was accepted is left to do."""
        await self._idle.wait()

    async def close(self) -> None:
        """Wait for the run in progress, drop what is queued and let the thread end."""
        with self._lock:
            queued = self._queue.clear()
        for job in queued:
            self._answer(job, self._lost("has ended"))
        for timer in self._timers.values():
            timer.cancel()
        worker, self._worker = self._worker, None
        if worker:
            worker.stop()
            await asyncio.to_thread(worker.join, _CLOSE_SECONDS)
            worker.abandon()
            for job in worker.jobs:  # of a thread that hangs, or died just now
                self._answer(job, self._lost("has ended"))
        self._runtime = None  # its memory is free now, not when the garbage is collected

    def next(self, worker: Worker) -> Batch | None:
        """What the worker is to run. On its thread."""
        with self._lock:
            if worker.abandoned:
                return None
            batch = self._queue.next()
            self._busy = batch is not None
            worker.hold(batch)  # before anybody else may look what it has
        return batch

    def ran(self, batch: Batch, seconds: float) -> None:
        """Answer the requests of a batch that are over now, and remember how it went."""
        self._admission.observe(batch.size, seconds)
        self._observer.batch(self._name, batch.size, seconds)
        for job in batch.jobs:
            if job.outcome is not None and not job.is_over:
                self._answer(job, job.outcome)
                self._observer.stage("queue", job.began - job.arrived)
                self._observer.stage("inference", job.ended - job.began)

    def loaded(self, worker: Worker, runtime: Runtime) -> None:
        """The model is ready, for the first time or again."""
        if worker is not self._worker:
            return
        self._runtime, self._health = runtime, "ready"
        if not self._started.done():
            self._started.set_result(None)
        else:
            log.info("model %s: ready again", self._name)

    def lost(self, worker: Worker, error: BaseException) -> None:
        """The thread has died: of an error that no request is to blame for, or while it loaded the model."""
        if worker is not self._worker:
            return
        if self._health == "starting":
            self._health, self._worker = "failed", None
            if not self._started.done():
                self._started.set_exception(error if isinstance(error, Exception) else EngineError(repr(error)))
            return
        log.error("model %s: its thread died", self._name, exc_info=error)
        self._replace(worker, f"died ({type(error).__name__}: {error})")

    def _answer(self, job: Job, outcome: Tensors | Exception) -> None:
        if not job.is_over:
            job.outcome = outcome  # nothing more is run for it
            self.drop(job)
            job.answer(outcome)

    def _begin(self) -> None:
        self._worker = Worker(self._name, self._load, self, delay=self._delay)

    def _watch(self) -> None:
        """Look whether the thread hangs, now and then."""
        if self._worker and self._worker.stuck(self._stuck_seconds):
            log.error("model %s: its thread has hung for %g s", self._name, self._stuck_seconds)
            self._abandoned = [each for each in (*self._abandoned, self._worker) if each.alive]
            self._replace(self._worker, f"hung for {self._stuck_seconds:g} s")
        self._timers["watch"] = self._loop.call_later(min(self._stuck_seconds / 4, 5), self._watch)

    def _replace(self, worker: Worker, fate: str) -> None:
        """Answer those who wait for `worker`, and let another thread begin, unless too many were lost."""
        self._worker, self._runtime, self._health = None, None, "restarting"
        self._failures = 1 if worker.proven else self._failures + 1
        with self._lock:
            worker.abandon()
            jobs = [*worker.jobs, *self._queue.clear()]
            self._busy = False
        goes_on = self._go_on(fate)
        for job in jobs:
            self._answer(job, self._lost(fate))
        if goes_on:
            self._observer.restarted(self._name)

    def _go_on(self, fate: str) -> bool:
        """Let another thread begin, in a while; False when that has been in vain too often."""
        if self._failures < MOST_FAILURES and len(self._abandoned) < MOST_ABANDONED:
            self._timers["begin"] = self._loop.call_later(self._backoff, self._begin_again)
            return True
        self._health = "failed"
        self._on_failure(EngineError(f"model {self._name}: its thread {fate}, again; restart the service"))
        return False

    def _begin_again(self) -> None:
        try:
            self._begin()
        except RuntimeError as error:  # as many threads as there may be
            log.error("model %s: no thread can be started: %s", self._name, error)
            self._failures += 1
            self._go_on(f"cannot be started ({error})")

    @property
    def _backoff(self) -> float:
        return float(BACKOFF_SECONDS * 4 ** max(0, self._failures - 1))

    def _lost(self, fate: str) -> Problem:
        seconds = 30 if self._health == "failed" else max(1, math.ceil(self._backoff))
        remedy = "the service must be restarted" if self._health == "failed" else f"try again in {seconds} s"
        detail = f"the thread that runs model {self._name} {fate}; {remedy}"
        return Problem("worker_lost", detail, headers={"Retry-After": str(seconds)})
