"""The service as an ASGI application. Run it with: isolatent serve BUNDLE..."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

from fastapi import FastAPI

from isolatent import __version__
from isolatent_export import Bundle
from isolatent_serve import openapi, problems
from isolatent_serve.access import RequestContext
from isolatent_serve.departures import CancelDeparted
from isolatent_serve.draining import RefuseWhileDraining
from isolatent_serve.lingering import LingeringClose
from isolatent_serve.routes import health, inference, models
from isolatent_serve.service import OnFailure, Service
from isolatent_serve.settings import Settings


class App(FastAPI):
    """FastAPI, with the OpenAPI document corrected where its arguments cannot say the truth."""

    def openapi(self) -> dict[str, Any]:
        """The document behind /openapi.json."""
        if self.openapi_schema is None:
            openapi.finish(super().openapi())
        return super().openapi()


def _stay_unready(error: Exception) -> None:
    logging.getLogger("isolatent_serve").error("refused to serve: %s", error)


def create_app(settings: Settings, bundles: Iterable[Bundle], *, on_failure: OnFailure = _stay_unready) -> FastAPI:
    """The application that serves `bundles`, which `Bundle.open` has opened.

    Their graphs are loaded and verified in the background when the server starts. `on_failure` hears of the first
    one that must not be served; unless it ends the process, the service stays unready.
    Raises BundleError for bundles that cannot be served together.
    """
    service = Service(settings, bundles, on_failure)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = App(
        title="isolatent",
        version=__version__,
        summary="Posteriors, embeddings, reconstructions, decodings and consistency of images and point clouds",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    for module in (inference, models, health):
        app.include_router(module.router)
    problems.install(app)
    app.add_middleware(CancelDeparted)
    app.add_middleware(RefuseWhileDraining)
    app.add_middleware(LingeringClose)
    app.add_middleware(RequestContext)  # added last: the outermost
    return app
