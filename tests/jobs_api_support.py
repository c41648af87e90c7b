"""Batch jobs over HTTP: archives of pictures to upload, and a job followed to its end."""

from __future__ import annotations

import io
import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow.parquet as parquet
from PIL import Image

ALICE, BOB = "alice-" + "k" * 32, "bob-" + "k" * 32

ZIP = {"Content-Type": "application/zip"}


@dataclass
class JobService:
    """Where the service is, where it keeps its jobs, and below which directory their inputs may lie."""

    url: str
    directory: Path
    inputs: Path

    def client(self, key: str) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=60, headers={"Authorization": f"Bearer {key}"})


def pictures(count: int, bad: tuple[int, ...] = ()) -> dict[str, bytes]:
    """So many grey pictures (16, 16) as PNG files by name, those at the places `bad` broken."""
    rng, found = np.random.default_rng(7), {}
    for place in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(file, "PNG")
        found[f"{place:06d}.png"] = b"no picture" if place in bad else file.getvalue()
    return found


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip file of these."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return archive.getvalue()


def upload(client: httpx2.Client, files: dict[str, bytes]) -> str:
    """Upload a zip file of these; returns its id."""
    answer = client.post("/v1/files?filename=pictures.zip", content=zipped(files), headers=ZIP)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def create(client: httpx2.Client, body: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """Make a job."""
    answer = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": key} if key else {})
    assert answer.status_code in (200, 202), answer.text
    made: dict[str, Any] = answer.json()
    return made


def wait(client: httpx2.Client, job: str, *states: str, seconds: float = 60) -> dict[str, Any]:
    """Wait until a job is in one of `states`, or over; returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job}").json()
        if found["state"] in (states or ("succeeded", "failed", "cancelled")):
            return found
        time.sleep(0.1)
    raise AssertionError(f"after {seconds:g} s: {found}")


def rows(client: httpx2.Client, job: str) -> dict[str, dict[str, Any]]:
    """The rows of the results by id, of which none is there twice."""
    found: list[dict[str, Any]] = []
    for part in client.get(f"/v1/jobs/{job}/results").json()["data"]:
        table = parquet.read_table(io.BytesIO(client.get(part["href"]).content))
        assert table.num_rows == part["rows"]
        found += table.to_pylist()
    by_id = {row["id"]: row for row in found}
    assert len(by_id) == len(found)
    return by_id


def errors(client: httpx2.Client, job: str) -> list[dict[str, Any]]:
    """The inputs that failed."""
    return [json.loads(line) for line in client.get(f"/v1/jobs/{job}/errors").text.splitlines()]


def parts_on_disk(directory: Path, job: str) -> dict[str, bytes]:
    """The parts of a job's folder by name."""
    return {path.name: path.read_bytes() for path in sorted((directory / "jobs" / job).glob("part-*"))}
