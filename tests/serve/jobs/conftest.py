"""A service that does batch jobs, with two keys, in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from isolatent_serve import JobSettings, Settings
from jobs_api_support import ALICE, BOB, JobService, pictures
from serve_support import running


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Iterator[JobService]:
    """A service over `tiny` with jobs; in the folder `images` below its inputs are 20 pictures, the third is broken."""
    folder = tmp_path_factory.mktemp("jobs")
    keys, inputs = folder / "keys", folder / "inputs"
    keys.touch(0o600)
    keys.write_text(f"alice:{ALICE}\nbob:{BOB}\n")
    (inputs / "images").mkdir(parents=True)
    for name, content in pictures(20, bad=(2,)).items():
        (inputs / "images" / name).write_bytes(content)
    (folder / "secret.png").write_bytes(b"secret")
    (inputs / "link.png").symlink_to(folder / "secret.png")
    its = JobSettings(
        directory=folder / "jobs", inputs=(inputs,), upload_bytes=2**20, stored_bytes=3 * 2**20, processes=1, pending=8
    )
    settings = Settings(device="cpu", threads=1, keys=keys, jobs=its)
    with running(settings, bundle_path) as url:
        yield JobService(url, its.directory, inputs)


@pytest.fixture
def alice(jobs: JobService) -> Iterator[httpx2.Client]:
    """A client with a key."""
    with jobs.client(ALICE) as client:
        yield client


@pytest.fixture
def bob(jobs: JobService) -> Iterator[httpx2.Client]:
    """A client with another key."""
    with jobs.client(BOB) as client:
        yield client
