"""The models, the OpenAPI document, and the numbers no model should give."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest

from isolatent_export.inputs import InputError
from isolatent_serve import outputs, results, schemas
from isolatent_serve.decoding import Decoded
from isolatent_serve.inputs import Items
from isolatent_serve.problems import Problem


def test_the_served_models_are_listed(client: httpx2.Client) -> None:
    response = client.get("/v1/models")
    models = schemas.ModelList.model_validate_json(response.content)
    assert [(model.id, model.ready, model.provider) for model in models.data] == [
        ("tiny", True, "CPUExecutionProvider"),
        ("tiny-colour", True, "CPUExecutionProvider"),
        ("tiny-cloud", True, "CPUExecutionProvider"),
    ]
    assert [model.modality for model in models.data] == ["image", "image", "point_cloud"]
    assert [model.input.shape for model in models.data] == [(16, 16, 1), (12, 20, 3), (64, 3)]
    assert [model.reconstruction_shape for model in models.data] == [(16, 16, 1), (12, 20, 3), (49, 3)]


def test_one_model_is_described(client: httpx2.Client) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert client.get("/v1/models/tiny-colour").json() == listed[1]


def test_an_unknown_model_is_a_problem(client: httpx2.Client) -> None:
    response = client.get("/v1/models/big")
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_operation_ids_are_stable(client: httpx2.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {
        path: {method: facts["operationId"] for method, facts in methods.items()} for path, methods in paths.items()
    } == {
        "/v1/posteriors": {"post": "create_posteriors"},
        "/v1/embeddings": {"post": "create_embeddings"},
        "/v1/reconstructions": {"post": "create_reconstructions"},
        "/v1/decodings": {"post": "create_decodings"},
        "/v1/consistency": {"post": "create_consistency"},
        "/v1/models": {"get": "list_models"},
        "/v1/models/{model}": {"get": "get_model"},
        "/v2": {"get": "get_protocol_server"},
        "/v2/health/live": {"get": "get_protocol_live"},
        "/v2/health/ready": {"get": "get_protocol_ready"},
        "/v2/models/{model}": {"get": "get_protocol_model"},
        "/v2/models/{model}/versions/{version}": {"get": "get_protocol_model_version"},
        "/v2/models/{model}/ready": {"get": "get_protocol_model_ready"},
        "/v2/models/{model}/versions/{version}/ready": {"get": "get_protocol_model_version_ready"},
        "/v2/models/{model}/infer": {"post": "create_protocol_inference"},
        "/v2/models/{model}/versions/{version}/infer": {"post": "create_protocol_version_inference"},
        "/v2/repository/index": {"post": "list_protocol_models"},
        "/healthz": {"get": "get_health"},
        "/readyz": {"get": "get_readiness"},
        "/metrics": {"get": "get_metrics"},
    }


def test_openapi_describes_every_encoding(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, options in (("posteriors", 3), ("embeddings", 5), ("reconstructions", 3), ("consistency", 4)):
        operation = document["paths"][f"/v1/{path}"]["post"]
        assert set(operation["requestBody"]["content"]) == {
            "application/json",
            "multipart/form-data",
            "image/*",
            "model/*",
            "text/plain",
            "application/octet-stream",
            "application/x-npy",
        }
        assert len(operation["parameters"]) == options
        assert "application/x-safetensors" in operation["responses"]["200"]["content"]
        assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]


def test_openapis_examples_decode(client: httpx2.Client) -> None:
    examples = client.get("/openapi.json").json()["paths"]["/v1/posteriors"]["post"]["requestBody"]["content"]
    for name, example in examples["application/json"]["examples"].items():
        response = client.post("/v1/posteriors?model=tiny", json=example["value"])
        assert response.status_code == (422 if name == "numbers" else 200)  # the numbers are 2 x 2, the model's 16 x 16


def test_browsers_of_other_sites_get_nothing(client: httpx2.Client) -> None:
    response = client.get("/v1/models", headers={"Origin": "https://example.com"})
    assert not [name for name in response.headers if name.startswith("access-control")]
    assert "Server" not in response.headers


class Overflowing:
    """Graphs whose second item has a variance beyond float32."""

    def encode(self, inputs: Any) -> Any:
        log_variance = np.zeros((len(inputs), 2), np.float32)
        log_variance[1] = 100
        return np.ones((len(inputs), 2), np.float32), log_variance

    def decode(self, latents: Any) -> Any:
        return latents


def test_an_answer_that_is_not_finite_is_an_error_of_its_item() -> None:
    computed = outputs.posterior(Overflowing(), np.zeros((3, 2, 2, 1), np.uint8))
    decoded = Decoded(Items([b""] * 4), np.zeros((3, 2, 2, 1), np.uint8), {0: InputError("undecodable", "bad")})
    result = results.collect(decoded, computed, {"mean": (2,), "variance": (2,), "kl": ()})
    assert {index: error.code for index, error in result.errors.items()} == {0: "undecodable", 2: "non_finite_output"}
    assert np.isnan(result.tensors["mean"][[0, 2]]).all()
    assert (result.tensors["mean"][[1, 3]] == 1).all()
    with pytest.raises(Problem, match="2 of 4 are bad"):
        results.require_all(decoded, result.errors)
