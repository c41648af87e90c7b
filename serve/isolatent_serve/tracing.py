"""OpenTelemetry: a span per request with one below it per stage, sent to a collector by OTLP over HTTP.

On when the environment names a collector, OTEL_EXPORTER_OTLP_ENDPOINT; all of OpenTelemetry's own variables count.
Needs: pip install "isolatent[otel]". When it is off, nothing of this is imported or run.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from isolatent import __version__
from isolatent_serve.laps import Lap, Laps
from isolatent_serve.logs import log
from isolatent_serve.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

END_SECONDS = 2.0
"""For the last spans to be sent, when the service ends."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
_TOLD = {
    "request_id": "isolatent.request_id",
    "route": "http.route",
    "key": "isolatent.key",
    "model": "isolatent.model",
    "inputs": "isolatent.inputs",
    "code": "error.type",
}
"""Member of `request.state` -> attribute of the span."""


def provider() -> TracerProvider | None:
    """What makes spans and sends them, from the environment; None when no collector is named. `end` it."""
    if not any(map(os.environ.get, _ENDPOINTS)) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if find_spec("opentelemetry.exporter") is None or find_spec("opentelemetry.sdk") is None:
        log.warning('no traces are sent: a collector is named, but run: pip install "isolatent[otel]"')
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    made = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


async def end(provider: TracerProvider) -> None:
    """Send what is left, unless the collector takes more time than is worth to wait."""
    thread = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, END_SECONDS)


class Tracing:
    """ASGI middleware around RequestContext: each request is a span, within the trace that its `traceparent` names."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.app = app
        self._tracer = provider.get_tracer("isolatent_serve", __version__)
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self.app(scope, receive, send)
            return
        span = self._begin(scope)
        state = scope.setdefault("state", {})
        state["trace_id"] = f"{span.get_span_context().trace_id:032x}"
        state["laps"] = partial(TracedLaps, self._tracer, span)
        try:
            await self.app(scope, receive, send)
        finally:
            _describe(span, scope, state)
            span.end()

    def _begin(self, scope: Scope) -> Span:
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract(dict(Headers(scope=scope)))
        return self._tracer.start_span(scope["method"], context, SpanKind.SERVER)


class TracedLaps(Laps):
    """Laps that are spans below that of their request, too."""

    __slots__ = ("_context", "_since", "_tracer")

    def __init__(self, tracer: Tracer, span: Span, metrics: Metrics) -> None:
        from opentelemetry.trace import set_span_in_context

        super().__init__(metrics)
        self._tracer = tracer
        self._context = set_span_in_context(span)
        self._since = time.time_ns()

    def done(self, lap: Lap) -> None:
        """The lap ends now."""
        super().done(lap)
        now = time.time_ns()
        self._tracer.start_span(lap, self._context, start_time=self._since).end(now)
        self._since = now


def _describe(span: Span, scope: Scope, state: dict[str, Any]) -> None:
    from opentelemetry.trace import StatusCode

    method, status = scope["method"], state.get("status", 0)
    span.update_name(f"{method} {state.get('route', 'unknown')}")
    told = {"http.request.method": method, "url.path": scope["path"], "http.response.status_code": status}
    span.set_attributes(told | {attribute: state[name] for name, attribute in _TOLD.items() if name in state})
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _resource() -> Resource:
    from opentelemetry.sdk.resources import Resource

    found = Resource.create({"service.version": __version__})  # reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        return found.merge(Resource({"service.name": "isolatent"}))
    return found
