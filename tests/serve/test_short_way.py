"""The short way to the inference functions is open to them only because they need nothing of the framework."""

from __future__ import annotations

import inspect

import httpx2
from fastapi.routing import APIRoute

from isolatent_serve.routes import inference


def test_inference_functions_take_the_request_and_nothing_else() -> None:
    routes = [route for route in inference.router.routes if isinstance(route, APIRoute)]
    assert len(routes) == 5
    for route in routes:
        assert list(inspect.signature(route.endpoint).parameters) == ["request"]
        assert "{" not in route.path


def test_other_methods_and_addresses_beside_them_are_refused(client: httpx2.Client) -> None:
    response = client.get("/v1/posteriors")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert client.post("/v1/posteriors/", content=b"x").status_code == 404
