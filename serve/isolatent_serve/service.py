"""The parts of a running service that its routes share, and how they start and stop together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from starlette.requests import Request

from isolatent_export import Bundle
from isolatent_serve.decoding import Decoder
from isolatent_serve.parsing import Parsers
from isolatent_serve.problems import Problem
from isolatent_serve.registry import RETRY_SECONDS, Registry, not_ready
from isolatent_serve.settings import Settings

log = logging.getLogger("isolatent_serve")

OnFailure = Callable[[Exception], None]
"""Told once why a model must not be served."""


class Service:
    """Settings, models, decoding threads and parser processes of one app."""

    def __init__(self, settings: Settings, bundles: Iterable[Bundle], on_failure: OnFailure) -> None:
        """Raises BundleError for bundles that cannot be served together."""
        self.settings = settings
        self.models = Registry(bundles, settings)
        limits, modalities = settings.limits, {model.manifest.modality for model in self.models}
        self.parsers = Parsers(settings.parsers, limits.parse_seconds, limits.parse_megabytes, sorted(modalities))
        self.decoder = Decoder(limits.inputs, self.parsers)
        self._on_failure = on_failure
        self._failure: Exception | None = None
        self._draining = False
        self._working = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make the models ready in the background while requests are already answered.

        Stops all threads and processes at the end.
        """
        starting = asyncio.create_task(self._start())
        try:
            yield
        finally:
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            await asyncio.gather(*(model.engine.close() for model in self.models))
            self.decoder.close()
            await self.parsers.close()

    def drain(self) -> None:
        """Accept no new work from now on. Safe in a signal handler."""
        self._draining = True

    @property
    def drained(self) -> bool:
        """Whether `drain` was called and all accepted work is done."""
        return self._draining and not self._working

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Accepted work: the service is not drained before the block ends."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    def require_open(self) -> None:
        """Raise Problem `draining` once the service is about to end."""
        if self._draining:
            headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
            raise Problem("draining", "the service is ending; try again, by another connection", headers=headers)

    def require_ready(self) -> None:
        """Raise Problem `not_ready` until every model may be served, and `draining` at the end."""
        self.require_open()
        if self._failure:
            raise not_ready(f"refused to serve: {self._failure}")
        if not self.models.ready:
            waiting = ", ".join(model.manifest.name for model in self.models if not model.engine.ready)
            raise not_ready(f"being verified: {waiting}; try again soon")
        if not self.parsers.ready:
            raise not_ready("the processes that read files are starting; try again soon")

    async def _start(self) -> None:
        try:
            self.parsers.launch()  # its imports go on beside the loading of the models
            for model in self.models:
                await model.start(self.settings.device, self.settings.threads)
                log.info("model %s is ready on %s", model.manifest.name, model.engine.provider)
            await self.parsers.start()
        except Exception as error:
            self._failure = error
            self._on_failure(error)


def of(request: Request) -> Service:
    """The service that answers `request`."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
