"""Requests of the Open Inference Protocol as bytes, and what its errors look like."""

from __future__ import annotations

from typing import Any

import httpx2
import orjson

HEADER_LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/tiny/infer"


def refused(response: httpx2.Response, status: int, *words: str) -> None:
    """Check an error of the protocol: its status, its only member and its words."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert [word for word in words if word not in response.json()["error"]] == [], response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Request-Id"]


def pixels(**changes: Any) -> dict[str, Any]:
    """A request for the outputs of one black picture, with some members of its input changed or, if None, absent."""
    given = {"name": "input", "datatype": "UINT8", "shape": [1, 16, 16, 1], "data": [0] * 256, **changes}
    return {"inputs": [{name: value for name, value in given.items() if value is not None}]}


def post_binary(
    client: httpx2.Client, request: dict[str, Any], data: bytes, *, length: Any = None, path: str = INFER
) -> httpx2.Response:
    header = orjson.dumps(request)
    headers = {HEADER_LENGTH: str(len(header) if length is None else length)}
    return client.post(path, content=header + data, headers=headers)
