"""Every address answers errors in the shape that the OpenAPI document says: RFC 9457, or that of its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from isolatent_serve import Settings, schemas
from isolatent_serve.problems import PROBLEMS
from isolatent_serve.protocol.schemas import ProtocolError
from serve_support import running

Operations = list[tuple[str, str, dict[str, Any]]]

PROBES = {"/healthz", "/readyz"}
VERBS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@pytest.fixture
def operations(client: httpx2.Client) -> Operations:
    """Method, address and description of every operation, for a model that does not exist."""
    paths = client.get("/openapi.json").json()["paths"]
    made = [
        (method.upper(), path.replace("{model}", "big").replace("{version}", "1"), operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]
    assert len(made) >= 19
    return made


def check(response: httpx2.Response, operation: dict[str, Any], address: str) -> None:
    """The answer is an error of the media type and the shape that the document promises."""
    assert 400 <= response.status_code < 500, f"{address}: {response.text}"
    promised = operation["responses"]["default"]["content"]
    assert list(promised) == [response.headers["Content-Type"]], address
    assert response.headers["X-Request-Id"]
    if address.startswith("/v2"):
        assert ProtocolError.model_validate_json(response.content).error
        return
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = schemas.ProblemDetails.model_validate_json(response.content)
    assert (problem.status, problem.title) == PROBLEMS[problem.code]
    assert problem.status == response.status_code
    assert problem.request_id == response.headers["X-Request-Id"]


def test_every_operation_answers_a_bad_request_as_documented(client: httpx2.Client, operations: Operations) -> None:
    for method, address, operation in operations:
        if method == "POST":
            response = client.post(address, content=b"{", headers={"Content-Type": "application/json"})
            check(response, operation, address)
        elif "/big" in address:
            check(client.get(address), operation, address)


def test_every_operation_refuses_other_methods_as_documented(client: httpx2.Client, operations: Operations) -> None:
    known = {(method, address) for method, address, _ in operations}
    for _, address, operation in operations:
        for verb in VERBS:
            if (verb, address) not in known:
                response = client.request(verb, address)
                check(response, operation, address)
                assert response.status_code == 405
                assert response.headers["Allow"]


@pytest.fixture
def locked(bundle_path: Path, tmp_path: Path) -> Iterator[httpx2.Client]:
    """A client without a key, of a service that wants one."""
    keys = tmp_path / "keys"
    keys.write_text("someone:a-key-of-more-than-sixteen-characters\n")
    keys.chmod(0o600)
    settings = Settings(device="cpu", threads=1, keys=keys)
    with running(settings, bundle_path) as url, httpx2.Client(base_url=url) as its:
        yield its


def test_every_operation_but_the_probes_wants_a_key_as_documented(
    locked: httpx2.Client, operations: Operations
) -> None:
    for method, address, operation in operations:
        if address not in PROBES:
            response = locked.request(method, address)
            check(response, operation, address)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"


def test_every_code_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
    assert [code for code in PROBLEMS if f"`{code}`" not in text] == []
