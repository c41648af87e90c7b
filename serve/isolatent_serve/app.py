"""The service as an ASGI application. Run it with: isolatent serve BUNDLE..."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from types import ModuleType
from typing import Any

from fastapi import FastAPI

from isolatent import __version__
from isolatent_export import Bundle
from isolatent_serve import openapi, refusals, tracing
from isolatent_serve.access import RequestContext
from isolatent_serve.draining import RefuseWhileDraining
from isolatent_serve.engine import OnFailure
from isolatent_serve.exchange import WatchExchange
from isolatent_serve.keys import RequireKey
from isolatent_serve.lane import Lane
from isolatent_serve.routes import health, inference, inference_protocol, jobs_off, metrics, models
from isolatent_serve.service import Service
from isolatent_serve.settings import Settings
from isolatent_serve.short_way import ShortWay
from isolatent_serve.tracing import Tracing


class App(FastAPI):
    """FastAPI, with the OpenAPI document corrected where its arguments cannot say the truth."""

    def openapi(self) -> dict[str, Any]:
        """The document behind /openapi.json."""
        if self.openapi_schema is None:
            openapi.finish(super().openapi())
        return super().openapi()


def _jobs(settings: Settings) -> tuple[ModuleType, ...]:
    """The routes of batch jobs; what these need is loaded only where there are any."""
    if settings.jobs is None:
        return (jobs_off,)
    from isolatent_serve.routes import files, jobs

    return files, jobs


def _methods(modules: Iterable[ModuleType]) -> dict[str, list[str]]:
    """The methods of each address: the framework, which has a route for each, tells those of the first one only."""
    found: dict[str, set[str]] = {}
    for module in modules:
        for route in module.router.routes:
            found.setdefault(route.path, set()).update(route.methods)
    return {path: sorted(methods) for path, methods in found.items()}


def _stay_unready(error: Exception) -> None:
    logging.getLogger("isolatent_serve").error("refused to serve: %s", error)


def create_app(settings: Settings, bundles: Iterable[Bundle], *, on_failure: OnFailure = _stay_unready) -> FastAPI:
    """The application that serves `bundles`, which `Bundle.open` has opened.

    Their graphs are loaded and verified in the background when the server starts. `on_failure` hears of the first
    one that must not be served; unless it ends the process, the service stays unready.
    Raises BundleError for bundles that cannot be served together, and KeysError for a file of keys that cannot be used.
    """
    service = Service(settings, bundles, on_failure)
    tracer_provider = tracing.provider()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield
        if tracer_provider:
            await tracing.end(tracer_provider)

    app = App(
        title="isolatent",
        version=__version__,
        summary="Posteriors, embeddings, reconstructions, decodings and consistency of images and point clouds",
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # tracing.py and metrics.py do that
    )
    app.state.service = service
    app.state.lane = None if tracer_provider else Lane(service, inference.OUTPUTS)  # spans are made on the normal way
    modules = (inference, inference_protocol, models, health, metrics, *_jobs(settings))
    for module in modules:
        app.include_router(module.router)
    app.state.methods = _methods(modules)
    refusals.install(app)
    app.add_middleware(ShortWay, router=inference.router)
    app.add_middleware(RefuseWhileDraining, service=service)
    if service.keys:
        app.add_middleware(RequireKey, keys=service.keys)
    app.add_middleware(WatchExchange, holding=service.holding)
    fixed = frozenset(route.path for module in modules for route in module.router.routes if "{" not in route.path)
    app.add_middleware(RequestContext, metrics=service.metrics, routes=fixed)
    if tracer_provider:
        app.add_middleware(Tracing, provider=tracer_provider)  # added last: the outermost
    return app
