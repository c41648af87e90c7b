"""OpenTelemetry, as a collector on the loopback sees it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from isolatent_serve import Settings, tracing
from serve_support import running

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(HTTPServer):
    """Takes spans by OTLP over HTTP and keeps them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[Any]:
        resources = [resource for request in self.requests for resource in request.resource_spans]
        return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def collector(bundle_path: Path) -> Iterator[Collector]:
    """A collector that has got the spans of four requests to a service that has ended."""
    with Collector() as collector, pytest.MonkeyPatch.context() as environment:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with running(Settings(device="cpu", threads=1), bundle_path) as url:
            zeros = {"input": [0] * 8}
            parent = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "traced"}
            httpx2.post(f"{url}/v1/decodings", json=zeros, headers=parent)
            httpx2.post(f"{url}/v1/decodings", json=zeros, headers={"traceparent": "nonsense"})
            httpx2.get(f"{url}/nowhere/secret")
            httpx2.post(f"{url}/v1/posteriors", content=b"")
        yield collector
        collector.shutdown()


def named(collector: Collector, name: str) -> list[Any]:
    return [span for span in collector.spans if span.name == name]


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_request_is_a_span_in_the_trace_of_its_client(collector: Collector) -> None:
    first, second = named(collector, "POST /v1/decodings")
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, PARENT)
    assert second.trace_id.hex() != TRACE
    assert second.parent_span_id == b""
    assert attributes(first) == {
        "http.request.method": "POST",
        "http.route": "/v1/decodings",
        "http.response.status_code": 200,
        "url.path": "/v1/decodings",
        "isolatent.request_id": "traced",
        "isolatent.model": "tiny",
        "isolatent.inputs": 1,
    }


def test_its_stages_are_spans_below_it(collector: Collector) -> None:
    whole, _ = named(collector, "POST /v1/decodings")
    stages = [span for span in collector.spans if span.parent_span_id == whole.span_id]
    assert [span.name for span in stages] == ["read", "decode", "model", "write"]
    times = [time for span in stages for time in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert times == sorted(times)
    assert whole.start_time_unix_nano <= times[0] < times[-1] <= whole.end_time_unix_nano


def test_errors_are_spans_named_by_code_and_not_by_address(collector: Collector) -> None:
    (lost,) = named(collector, "GET unknown")
    assert attributes(lost)["error.type"] == "not_found"
    (refused,) = named(collector, "POST /v1/posteriors")
    assert attributes(refused)["http.response.status_code"] == 415


def test_probes_are_not_traced_and_the_service_names_itself(collector: Collector) -> None:
    assert not [span for span in collector.spans if "readyz" in span.name]
    (resource,) = {str(resource.resource) for request in collector.requests for resource in request.resource_spans}
    assert 'string_value: "isolatent"' in resource


def test_without_a_collector_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert tracing.provider() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing.provider() is None


def test_a_collector_without_the_packages_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(tracing, "find_spec", lambda _name: None)
    assert tracing.provider() is None
    assert 'pip install "isolatent[otel]"' in caplog.text


def test_a_collector_that_does_not_answer_holds_nobody_up(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with running(Settings(device="cpu", threads=1), bundle_path) as url:
            assert httpx2.post(f"{url}/v1/decodings", json={"input": [0] * 8}).status_code == 200
            began = time.monotonic()
        assert time.monotonic() - began < 8  # the exporter would try for ten seconds
