"""Requests made up from /openapi.json by schemathesis: the service keeps what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from soak_support import LONG, SEED, Running, scaled, seeded

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
KNOWN = '[parameters]\nmodel = "tiny"\nversion = "1"\n'
ANY = "[parameters]\n"


@pytest.mark.timeout(scaled(300, 7200))
@pytest.mark.parametrize("names", ["of a model", "at random"] if LONG else ["of a model"])
def test_the_service_is_as_its_openapi_document_says(service: Running, png: bytes, tmp_path: Path, names: str) -> None:
    seeded("openapi")
    (tmp_path / "schemathesis.toml").write_text(KNOWN if names == "of a model" else ANY)
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{service.url}/openapi.json"]
    command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--seed", str(SEED)]
    command += ["--max-examples", str(scaled(5, 300)), "--continue-on-failure", "--no-shrink", "--warnings", "off"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    print(done.stdout[-600:])
    assert done.returncode == 0, done.stdout[:20_000] + done.stderr[-2000:]
    service.require_alive(png)
