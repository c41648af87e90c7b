"""Requests for files and jobs made up from /openapi.json by schemathesis: the service keeps what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from soak_support import SEED, lasting, scaled, seeded

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)


@pytest.mark.timeout(scaled(300, 3600))
def test_files_and_jobs_are_as_the_openapi_document_says(bundle_path: Path, tmp_path: Path) -> None:
    seeded("jobs openapi")
    (tmp_path / "inputs").mkdir()
    jobs = ["--jobs", tmp_path / "jobs", "--jobs-input", tmp_path / "inputs", "--body-timeout", "2"]
    with lasting(tmp_path / "log", bundle_path, *jobs) as running:
        command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{running.url}/openapi.json"]
        command += ["--include-tag", "jobs", "--checks", ",".join(CHECKS), "--seed", str(SEED)]
        command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(scaled(5, 300))]
        command += ["--continue-on-failure", "--no-shrink", "--warnings", "off"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        print(done.stdout[-600:])
        assert done.returncode == 0, done.stdout[:20_000] + done.stderr[-2000:]
        running.end(20)
