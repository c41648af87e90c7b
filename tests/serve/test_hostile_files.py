"""Files that have crashed or misled other decoders, in every encoding: an answer for each, and nothing worse."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from isolatent_serve.problems import OF_INPUTS
from serve_support import measured_memory, serving, wait_until_ready

if TYPE_CHECKING:
    from conftest import Server

MODELS = ("tiny", "tiny-cloud")
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def hostile(data_dir: Path) -> list[Path]:
    """All of them: pictures, meshes and other things."""
    files = sorted(path for path in (data_dir / "hostile").rglob("*") if path.is_file() and path.suffix != ".tsv")
    assert len(files) > 150
    return files


@pytest.mark.data
def test_no_hostile_file_harms_the_service(
    client: httpx2.Client, server: Server, hostile: list[Path], png: bytes
) -> None:
    client.post("/v1/posteriors?model=tiny-cloud", content=b"warm up", headers=BYTES)
    slowest = (0.0, "")
    with measured_memory(server.pid) as memory:
        for file in hostile:
            for model in MODELS:
                memory.at, began = file.name, time.monotonic()
                response = client.post(f"/v1/posteriors?model={model}", content=file.read_bytes(), headers=BYTES)
                slowest = max(slowest, (time.monotonic() - began, file.name))
                require_documented(response, file)
    print(f"memory grew by {memory.growth:.0f} MB ({memory.peak_at}), slowest {slowest[0]:.2f} s ({slowest[1]})")
    assert memory.growth < 256
    assert slowest[0] < 5
    assert client.post("/v1/posteriors?model=tiny", files={"input": png}).status_code == 200


def require_documented(response: httpx2.Response, file: Path) -> None:
    if response.status_code != 200:
        problem = response.json()
        documented = OF_INPUTS if file.stat().st_size else {"empty_body"}
        assert response.status_code in (400, 413, 422), f"{file.name}: {response.text}"
        assert problem["code"] in documented, f"{file.name}: {response.text}"
        assert problem["detail"], file.name


@pytest.mark.data
def test_base64_changes_nothing(client: httpx2.Client, hostile: list[Path]) -> None:
    for file in hostile[::4]:
        data = file.read_bytes() or b"\0"
        for model in MODELS:
            raw = client.post(f"/v1/posteriors?model={model}", content=data, headers=BYTES)
            text = base64.b64encode(data).decode()
            coded = client.post("/v1/posteriors", json={"model": model, "input": text})
            assert (coded.status_code, coded.json().get("code")) == (raw.status_code, raw.json().get("code")), file.name


@pytest.mark.data
def test_decoders_write_nothing_into_the_log(bundle_path: Path, hostile: list[Path]) -> None:
    with serving(bundle_path) as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        for file in hostile:
            httpx2.post(f"{url}/v1/posteriors", content=file.read_bytes(), headers=BYTES)
        process.terminate()
        assert process.stderr
        lines = process.stderr.read().splitlines()
    assert len(lines) > len(hostile)
    assert [line for line in lines if not json.loads(line)["logger"].startswith("isolatent_serve")] == []


@pytest.mark.data
@pytest.mark.parametrize("model", MODELS)
def test_in_one_request_they_keep_their_places(client: httpx2.Client, hostile: list[Path], model: str) -> None:
    parts = [("input", (file.name, file.read_bytes())) for file in hostile]
    response = client.post(f"/v1/posteriors?model={model}&on_error=item", files=parts)
    assert response.status_code == 200, response.text
    assert [item["index"] for item in response.json()["data"]] == list(range(len(hostile)))
