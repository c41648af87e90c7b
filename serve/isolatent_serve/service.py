"""The parts of a running service that its routes share, how they start, change and stop together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request

from isolatent_export import Bundle, BundleError
from isolatent_serve.decoding import Decoder
from isolatent_serve.engine import OnFailure
from isolatent_serve.holding import Holding
from isolatent_serve.keys import KeyFile
from isolatent_serve.metrics import Metrics
from isolatent_serve.parsing import Parsers
from isolatent_serve.peers import Peers, State
from isolatent_serve.problems import Problem
from isolatent_serve.registry import RETRY_SECONDS, Model, Registry, not_ready
from isolatent_serve.repository import Repository
from isolatent_serve.rollout import Rollout
from isolatent_serve.settings import Settings

if TYPE_CHECKING:
    from isolatent_serve.jobs.desk import Desk

log = logging.getLogger("isolatent_serve")


class Service:
    """Settings, models, decoding threads and parser processes of one app."""

    def __init__(self, settings: Settings, bundles: Iterable[Bundle], on_failure: OnFailure) -> None:
        """Raises BundleError for bundles that cannot be served together, and for a model directory that is none."""
        self.settings = settings
        self.peers = Peers()
        self.metrics = Metrics()
        self.holding = Holding(settings.body_bytes)
        self.keys = KeyFile(settings.keys) if settings.keys else None
        self.models = Registry(bundles, settings, self.metrics, self._fail)
        self._modalities: set[str] = {model.manifest.modality for model in self.models}
        self.parsers = self._new_parsers()
        self.decoder = Decoder(settings.limits.inputs, self.parsers)
        self._rollout = self._follow(settings.models) if settings.models else None
        self.jobs = self._open_jobs(settings)
        self._on_failure = on_failure
        self._failure: Exception | None = None
        self._draining = False
        self._work: set[asyncio.Future[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make the models ready in the background while requests are already answered, and follow their directory.

        Stops all threads and processes at the end.
        """
        self._loop = asyncio.get_running_loop()
        background = asyncio.create_task(self._run())
        if self.jobs:
            self.jobs.start()
        try:
            yield
        finally:
            self._loop = None
            self.metrics.hand_over()
            background.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await background
            if self.jobs:
                await self.jobs.close()
            await asyncio.gather(*self._ending, *(model.engine.close() for model in self.models))
            self.decoder.close()
            await self.parsers.close()

    def reload(self) -> None:
        """Read the keys, and look at the model directory and again at what was refused, at once.

        For signal handlers and any thread.
        """
        if self._loop:
            if self.keys:
                self._loop.call_soon_threadsafe(self.keys.reload)
            self._loop.call_soon_threadsafe(self._asked.set)

    def drain(self) -> None:
        """Accept no new work from now on. Safe in a signal handler."""
        self._draining = True
        if self.jobs:
            self.jobs.drain()

    @property
    def drained(self) -> bool:
        """Whether `drain` was called and all accepted work is done."""
        return self._draining and not self._work

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Accepted work: until the block ends, the service is not drained and no model found in it is closed."""
        work = self.begin_work()
        try:
            yield
        finally:
            self.end_work(work)

    def begin_work(self) -> asyncio.Future[None]:
        """Accept work, as `working`, until `end_work` is called with what this returns."""
        work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._work.add(work)
        return work

    def end_work(self, work: asyncio.Future[None]) -> None:
        """The work is done."""
        self._work.remove(work)
        work.set_result(None)

    def require_open(self) -> None:
        """Raise Problem `draining` once the service is about to end."""
        if self._draining or self.peers.draining:
            headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
            raise Problem("draining", "the service is ending; try again, by another connection", headers=headers)

    @property
    def ready(self) -> bool:
        """Whether this process may be asked, whatever its peers say."""
        try:
            self._require_ready()
        except Problem:
            return False
        return True

    def require_ready(self) -> None:
        """Raise Problem `not_ready` until every model may be served by every process, and `draining` at the end."""
        self._require_ready()
        if self.peers.count > 1 and not self.peers.all(State.READY):
            raise not_ready("other processes of the service are starting; try again soon")

    def _require_ready(self) -> None:
        self.require_open()
        if self._failure:
            raise not_ready(f"refused to serve: {self._failure}")
        if not self.models.ready:
            raise not_ready(self._awaited())
        if not self.parsers.ready:
            raise not_ready("the processes that read files are starting; try again soon")

    def _awaited(self) -> str:
        waiting = [model.manifest.name for model in self.models if not model.engine.ready]
        if waiting or not self.models.complete:
            return f"being verified: {', '.join(waiting) or 'the model directory'}; try again soon"
        return f"no model is served; {self._remedy()}"

    async def _run(self) -> None:
        try:
            await self._start()
        except Exception as error:
            self._fail(error)
            return
        if self._rollout:
            await self._watch(self._rollout)

    async def _start(self) -> None:
        self.parsers.launch()  # its imports go on beside the loading of the models
        for model in self.models:
            await model.start(self.settings.device, self.settings.threads)
            self.models.announce(model)
        await self.parsers.start()
        if self._rollout:
            await self._rollout.update()
            self.models.complete = True
            self._require_models()

    async def _watch(self, rollout: Rollout) -> None:
        """Follow the model directory until the service drains."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.poll_seconds or None):
                    await self._asked.wait()
            if self._draining:
                return
            asked = self._asked.is_set()
            self._asked.clear()
            try:
                await rollout.update(again=asked)
            except Exception:  # what serves goes on
                log.exception("the model directory could not be followed")
            if asked:
                served = [f"{model.manifest.name} {model.manifest.version}" for model in self.models]
                log.info("read again: %s; serving %s", self.settings.models, ", ".join(served) or "nothing")

    def tell_metrics(self) -> None:
        """Bring the metrics up to date. To be called again and again, and before they are read."""
        self.metrics.hand_over()
        for model in self.models:
            self.metrics.queue(model.manifest.name, model.engine.waiting)

    def _open_jobs(self, settings: Settings) -> Desk | None:
        if settings.jobs is None:
            return None
        from isolatent_serve.jobs.desk import Desk  # an extra, and only this needs it

        return Desk(settings.jobs, settings.limits, self.metrics)

    def _fail(self, error: Exception) -> None:
        """Serve no more: a model cannot be."""
        self._failure = error
        self._on_failure(error)

    def _follow(self, directory: Path) -> Rollout:
        return Rollout(Repository(directory), self.models, self._make_ready, self._retire)

    def _require_models(self) -> None:
        """Raise BundleError when there is no model, and nobody looks for one; say so when there is none yet."""
        if any(self.models):
            return
        if not self.settings.poll_seconds:
            raise BundleError(f"no model to serve; {self._remedy()}, or let it be polled (--poll-seconds)")
        log.warning("not ready: no model is served; %s", self._remedy())

    def _remedy(self) -> str:
        refused = [each.reason for refusals in self.models.refused.values() for each in refusals]
        return "; ".join(refused) or f"put a bundle into {self.settings.models}, as NAME/VERSION"

    async def _make_ready(self, bundle: Bundle) -> Model:
        """A model that may be served at once, and somebody who reads what it takes. Raises BundleError or Lost."""
        model = self.models.make(bundle)
        try:
            await self._require_parsers(model.manifest.modality)
            await model.start(self.settings.device, self.settings.threads)
        except BaseException:
            await model.engine.close()
            raise
        return model

    async def _require_parsers(self, modality: str) -> None:
        """Replace the parser processes when they have no readers for `modality`."""
        if modality in self._modalities:
            return
        parsers = self._new_parsers(modality)
        try:
            parsers.launch()
            await parsers.start()
        except BaseException:
            await parsers.close()
            raise
        before, self.parsers = self.parsers, parsers
        self._modalities.add(modality)
        self.decoder.use(parsers)
        self._after_work(before.close)

    def _new_parsers(self, *more: str) -> Parsers:
        limits, modalities = self.settings.limits, sorted({*self._modalities, *more})
        return Parsers(self.settings.parsers, limits.parse_seconds, limits.parse_megabytes, modalities)

    def _retire(self, model: Model) -> None:
        async def end() -> None:
            await model.engine.drain()
            await model.engine.close()

        self._after_work(end)

    def _after_work(self, end: Callable[[], Awaitable[None]]) -> None:
        """Run `end` when all work that is under way now has ended."""
        task = asyncio.create_task(self._end(end, set(self._work)))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, end: Callable[[], Awaitable[None]], work: set[asyncio.Future[None]]) -> None:
        if work:  # whoever takes longer than this is only reading the answer
            limits = self.settings.limits
            await asyncio.wait(work, timeout=limits.body_seconds + limits.deadline_seconds)
        await end()


def of(request: Request) -> Service:
    """The service that answers `request`."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
