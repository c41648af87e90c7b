"""GET /metrics, as Prometheus reads it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from isolatent_serve import RequestLimits, Settings
from isolatent_serve.metrics import Metrics
from serve_support import running, serving, wait_until_ready

PNG = {"Content-Type": "image/png"}


class Scrape:
    """The samples of one scrape, by name."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.types = {family.name: family.type for family in families}
        self.samples = [sample for family in families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples called `name` that have these labels."""
        return sum(each.value for each in self.of(name) if labels.items() <= each.labels.items())

    def of(self, name: str) -> list[Any]:
        return [sample for sample in self.samples if sample.name == name]


@contextlib.contextmanager
def client_of(bundle_path: Path, **settings: Any) -> Iterator[httpx2.Client]:
    with (
        running(Settings(device="cpu", threads=1, **settings), bundle_path) as url,
        httpx2.Client(base_url=url, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client(bundle_path: Path) -> Iterator[httpx2.Client]:
    """A client of a service with `tiny` that only these tests use."""
    with client_of(bundle_path) as client:
        yield client


def scrape(client: httpx2.Client) -> Scrape:
    response = client.get("/metrics")
    assert (response.status_code, response.headers["Content-Type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    return Scrape(response.text)


def test_requests_are_counted_by_route_and_status(client: httpx2.Client, png: bytes) -> None:
    before = scrape(client)
    client.post("/v1/posteriors", content=png, headers=PNG)
    client.post("/v1/posteriors", content=b"no picture", headers=PNG)
    client.get("/v1/models/tiny")
    after = scrape(client)
    count = "isolatent_request_seconds_count"
    for labels in (
        {"method": "POST", "route": "/v1/posteriors", "status": "200"},
        {"method": "POST", "route": "/v1/posteriors", "status": "422"},
        {"method": "GET", "route": "/v1/models/{model}", "status": "200"},
        {"method": "GET", "route": "/metrics", "status": "200"},
    ):
        assert after(count, **labels) - before(count, **labels) == 1
    assert after("isolatent_request_seconds_sum", status="200") > before("isolatent_request_seconds_sum", status="200")
    assert after.types["isolatent_request_seconds"] == "histogram"


def test_what_clients_make_up_makes_no_labels(client: httpx2.Client) -> None:
    before = scrape(client)
    for number in range(20):
        client.get(f"/nowhere/{number}")
        client.get(f"/v1/models/none{number}")
    for method in ("PROPFIND", "MKCOL", "LOCK"):
        client.request(method, "/nowhere")
    after = scrape(client)
    labels = [sample.labels for sample in after.of("isolatent_request_seconds_count")]
    assert {each["method"] for each in labels} == {"GET", "POST", "OTHER"}
    assert after("isolatent_request_seconds_count", route="unknown", status="404") == 23
    assert len(after.samples) - len(before.samples) < 100  # a few series, however many addresses


def test_the_stages_of_a_request_are_timed(client: httpx2.Client, png: bytes) -> None:
    before = scrape(client)
    for path in ("/v1/posteriors", "/v1/embeddings", "/v1/reconstructions"):
        assert client.post(path, content=png, headers=PNG).status_code == 200
    after = scrape(client)
    whole = after("isolatent_request_seconds_sum") - before("isolatent_request_seconds_sum")
    parts = 0.0
    for stage in ("read", "decode", "queue", "inference", "write"):
        count, total = "isolatent_stage_seconds_count", "isolatent_stage_seconds_sum"
        assert after(count, stage=stage) - before(count, stage=stage) == 3
        parts += after(total, stage=stage) - before(total, stage=stage)
    assert 0 < parts < whole


def test_the_stages_of_the_open_inference_protocol_are_timed(client: httpx2.Client) -> None:
    before = scrape(client)
    tensor = {"name": "input", "shape": [1, 16, 16, 1], "datatype": "UINT8", "data": [0] * 256}
    assert client.post("/v2/models/tiny/infer", json={"inputs": [tensor]}).status_code == 200
    after = scrape(client)
    for stage in ("read", "decode", "queue", "inference", "write"):
        count = "isolatent_stage_seconds_count"
        assert after(count, stage=stage) - before(count, stage=stage) == 1


def test_batches_are_counted_and_the_queue_ends_empty(client: httpx2.Client, pngs: list[bytes]) -> None:
    before = scrape(client)
    files = [("input", (f"{number}.png", png, "image/png")) for number, png in enumerate(pngs)]
    assert client.post("/v1/posteriors", files=files).status_code == 200
    after = scrape(client)
    for name, added in (("isolatent_batch_items_sum", 7), ("isolatent_batch_items_count", 1)):
        assert after(name, model="tiny") - before(name, model="tiny") == added
    assert after("isolatent_batch_seconds_sum", model="tiny") > before("isolatent_batch_seconds_sum", model="tiny")
    assert [sample.value for sample in after.of("isolatent_queue_items")] == [0]


def test_rejections_are_counted_by_code(client: httpx2.Client, png: bytes) -> None:
    before = scrape(client)
    client.post("/v1/posteriors", content=png, headers={"Content-Type": "video/mp4"})
    client.post("/v1/embeddings", content=b"no picture", headers=PNG)
    client.post("/v1/embeddings?model=big", content=png, headers=PNG)
    client.post("/v2/models/big/infer", json={})
    after = scrape(client)
    name = "isolatent_rejections_total"
    for code, added in (("unsupported_media_type", 1), ("undecodable", 1), ("model_not_found", 2)):
        assert after(name, code=code) - before(name, code=code) == added


def test_a_file_that_its_reader_cannot_survive_is_counted(bundle_path: Path) -> None:
    slow = RequestLimits(parse_seconds=0.001)
    tiff = b"II*\0" + b"\0" * 64
    with client_of(bundle_path, limits=slow) as client:
        problem = client.post("/v1/posteriors", content=tiff, headers={"Content-Type": "image/tiff"}).json()
        assert scrape(client)("isolatent_rejections_total", code=problem["code"]) == 1


def test_a_model_tells_its_version_and_provider(client: httpx2.Client) -> None:
    facts = client.get("/v1/models/tiny").json()
    (info,) = scrape(client).of("isolatent_model_info")
    assert info.value == 1
    assert info.labels["provider"] == facts["provider"] == "CPUExecutionProvider"
    assert (info.labels["model"], info.labels["version"]) == ("tiny", facts["version"])
    assert info.labels["reason"] == facts["provider_reason"]
    assert scrape(client)("isolatent_model_restarts_total", model="tiny") == 0


def test_the_process_is_measured(client: httpx2.Client) -> None:
    found = scrape(client)
    assert found("process_resident_memory_bytes") > 10 * 2**20
    assert found("process_cpu_seconds_total") > 0
    assert found("process_open_fds") > 0


def test_a_replaced_model_is_no_longer_the_one_that_serves() -> None:
    metrics = Metrics()
    metrics.model("tiny", "1", "CPUExecutionProvider", "the only one")
    metrics.model("tiny", "2", "CUDAExecutionProvider", 'asked for with "cuda"')
    samples = Scrape(metrics.render().decode()).of("isolatent_model_info")
    assert {sample.labels["version"]: sample.value for sample in samples} == {"1": 0, "2": 1}


PROCESS = """
from isolatent_serve.metrics import Metrics
metrics = Metrics()
metrics.model("tiny", "1", "CPUExecutionProvider", "the only one")
metrics.request("POST", "/v1/posteriors", 200, 0.003)
metrics.batch("tiny", 5, 0.01)
metrics.queue("tiny", 2)
metrics.rejected("queue_full")
print(metrics.render().decode(), flush=True)
input()
"""


def test_several_processes_are_added_up(tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", PROCESS]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as first:
        assert first.stdout
        for line in first.stdout:
            if line == "\n":
                break
        second = subprocess.run(command, env=environment, input="\n", capture_output=True, text=True, check=True)
        first.communicate("\n", timeout=30)
    both = Scrape(second.stdout)
    assert both("isolatent_request_seconds_count", route="/v1/posteriors") == 2
    assert both("isolatent_batch_items_sum", model="tiny") == 10
    assert both("isolatent_queue_items", model="tiny") == 4
    assert both("isolatent_rejections_total", code="queue_full") == 2
    assert both("isolatent_model_info", model="tiny") == 1
    assert len({sample.labels["pid"] for sample in both.of("process_resident_memory_bytes")}) == 2


def test_any_worker_of_the_service_tells_of_all_of_them(bundle_path: Path, png: bytes) -> None:
    with serving(bundle_path, "--workers", "2") as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        for _ in range(20):  # connections of their own, which either worker takes
            assert httpx2.post(f"{url}/v1/posteriors", content=png, headers=PNG).status_code == 200
        end = time.monotonic() + 20  # the other worker hands its observations over ten times a second
        while True:
            found = Scrape(httpx2.get(f"{url}/metrics").text)
            if time.monotonic() > end or found("isolatent_request_seconds_count", route="/v1/posteriors") == 20:
                break
            time.sleep(0.05)
        process.terminate()
        process.communicate(timeout=60)
    assert found("isolatent_request_seconds_count", route="/v1/posteriors") == 20
    assert found("isolatent_batch_items_sum", model="tiny") == 20
    assert found("isolatent_model_info", model="tiny") == 1
    assert len({sample.labels["pid"] for sample in found.of("process_resident_memory_bytes")}) == 2


def test_readiness_tells_the_provider_that_the_metrics_tell(client: httpx2.Client) -> None:
    (info,) = scrape(client).of("isolatent_model_info")
    (model,) = client.get("/readyz").json()["models"]
    assert model == {
        "id": info.labels["model"],
        "version": info.labels["version"],
        "provider": info.labels["provider"],
        "provider_reason": info.labels["reason"],
    }
