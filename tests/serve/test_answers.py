"""Answers: the same bits as JSON, base64 and safetensors, the formulas, pictures, and Accept."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load

from isolatent_export import Bundle
from isolatent_export.runtime import OnnxRuntime
from isolatent_serve import schemas

Array = np.ndarray[Any, Any]
SAFETENSORS = {"Accept": "application/x-safetensors"}
TENSORS = {"posteriors": ["mean", "variance"], "embeddings": ["embedding"], "reconstructions": ["reconstruction"]}


def post(client: httpx2.Client, path: str, pngs: list[bytes], **options: Any) -> httpx2.Response:
    files = [("input", (f"{index}.png", png)) for index, png in enumerate(pngs)]
    headers = options.pop("headers", {})
    response = client.post(f"/v1/{path}", params={"model": "tiny", **options}, files=files, headers=headers)
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("path", TENSORS)
def test_floats_base64_and_safetensors_are_the_same_bits(client: httpx2.Client, pngs: list[bytes], path: str) -> None:
    floats = post(client, path, pngs).json()["data"]
    packed = post(client, path, pngs, encoding_format="base64").json()["data"]
    tensors = load(post(client, path, pngs, headers=SAFETENSORS).content)
    for name in TENSORS[path]:
        assert np.array_equal(np.array([item[name] for item in floats], np.float32), tensors[name])
        assert b"".join(base64.b64decode(item[name]) for item in packed) == tensors[name].tobytes()
    for name in tensors.keys() - set(TENSORS[path]):
        assert np.array_equal(np.array([item[name] for item in floats], np.float32), tensors[name])


def test_safetensors_says_what_it_is(client: httpx2.Client, pngs: list[bytes]) -> None:
    content = post(client, "posteriors", pngs, headers=SAFETENSORS).content
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"] == {"object": "list", "model": "tiny", "version": "1", "inputs": "7"}
    assert {name: tensor.dtype for name, tensor in load(content).items()} == dict.fromkeys(
        ("mean", "variance", "kl"), np.float32
    )


def test_posteriors_follow_their_formulas(
    client: httpx2.Client, pngs: list[bytes], batch: Array, bundle_path: Any
) -> None:
    mean, log_variance = OnnxRuntime(Bundle.open(bundle_path)).encode(batch[..., None])
    tensors = load(post(client, "posteriors", pngs, headers=SAFETENSORS).content)
    np.testing.assert_allclose(tensors["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(tensors["variance"], np.exp(log_variance), rtol=1e-5)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)
    np.testing.assert_allclose(tensors["kl"], kl, rtol=1e-4)


def test_embeddings_are_the_posterior_means(client: httpx2.Client, pngs: list[bytes]) -> None:
    means = [posterior["mean"] for posterior in post(client, "posteriors", pngs).json()["data"]]
    assert [item["embedding"] for item in post(client, "embeddings", pngs).json()["data"]] == means


def test_reconstructions_carry_their_error(client: httpx2.Client, pngs: list[bytes], batch: Array) -> None:
    for item, picture in zip(post(client, "reconstructions", pngs).json()["data"], batch, strict=True):
        pixels = np.array(item["reconstruction"])
        assert item["shape"] == list(pixels.shape) == [16, 16, 1]
        assert ((pixels >= 0) & (pixels <= 1)).all()
        assert item["error"] == pytest.approx(float(((picture[..., None] / 255 - pixels) ** 2).mean()), rel=1e-5)


@pytest.mark.parametrize(("model", "size", "mode"), [("tiny", (16, 16), "L"), ("tiny-colour", (20, 12), "RGB")])
def test_one_reconstruction_can_be_a_png(
    client: httpx2.Client, png: bytes, model: str, size: tuple[int, int], mode: str
) -> None:
    answers = [
        client.post("/v1/reconstructions", params={"model": model}, files={"input": png}, headers={"Accept": accept})
        for accept in ("image/png", "application/json")
    ]
    image = Image.open(io.BytesIO(answers[0].content))
    assert (answers[0].headers["Content-Type"], image.size, image.mode) == ("image/png", size, mode)
    pixels = np.array(answers[1].json()["data"][0]["reconstruction"]) * 255
    np.testing.assert_allclose(np.asarray(image).reshape(pixels.shape), pixels, atol=0.5001)


@pytest.mark.parametrize("path", TENSORS)
def test_answers_are_what_openapi_says(client: httpx2.Client, pngs: list[bytes], path: str) -> None:
    schema = getattr(schemas, path.removesuffix("s").capitalize() + "List")
    for options in ({}, {"encoding_format": "base64"}):
        schema.model_validate_json(post(client, path, pngs, **options).content)
    schema.model_validate_json(post(client, path, [*pngs, b"broken"], on_error="item").content)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/json;q=0.1, application/x-safetensors", "application/x-safetensors"),
        ("application/*", "application/json"),
        ("application/json;q=0, */*", "application/x-safetensors"),
        ("image/*", "image/png"),
        ("image/png;q=0.5, application/json;q=0.4", "image/png"),
    ],
)
def test_accept_chooses_the_format(client: httpx2.Client, png: bytes, accept: str, expected: str) -> None:
    response = post(client, "reconstructions", [png], headers={"Accept": accept})
    assert response.headers["Content-Type"] == expected


def test_without_accept_the_answer_is_json(client: httpx2.Client, png: bytes) -> None:
    del client.headers["Accept"]
    assert post(client, "posteriors", [png]).headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "accept", "count"),
    [
        ("posteriors", "image/png", 1),
        ("posteriors", "text/html", 1),
        ("posteriors", "application/json;q=0", 1),
        ("posteriors", "application/json;q=x", 1),
        ("reconstructions", "image/png", 2),
    ],
)
def test_an_accept_without_a_match_is_refused(
    client: httpx2.Client, png: bytes, path: str, accept: str, count: int
) -> None:
    files = [("input", png)] * count
    response = client.post(f"/v1/{path}?model=tiny", files=files, headers={"Accept": accept})
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")
    assert "application/json" in response.json()["detail"]


def test_bad_items_keep_their_place(client: httpx2.Client, pngs: list[bytes]) -> None:
    mixed = [pngs[0], b"broken", pngs[1]]
    first, error, last = post(client, "embeddings", mixed, on_error="item").json()["data"]
    assert error == {"object": "error", "index": 1, "code": "undecodable", "detail": error["detail"]}
    assert (first["index"], last["index"]) == (0, 2)
    good = post(client, "embeddings", [pngs[0], pngs[1]]).json()["data"]
    assert [first["embedding"], last["embedding"]] == [item["embedding"] for item in good]


def test_bad_items_are_nan_rows_in_safetensors(client: httpx2.Client, pngs: list[bytes]) -> None:
    content = post(client, "posteriors", [b"broken", pngs[0]], on_error="item", headers=SAFETENSORS).content
    tensors = load(content)
    assert np.isnan(tensors["mean"][0]).all()
    assert np.isfinite(tensors["mean"][1]).all()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert [error["index"] for error in json.loads(header["__metadata__"]["errors"])] == [0]


def test_all_items_may_be_bad(client: httpx2.Client) -> None:
    data = post(client, "reconstructions", [b"broken", b""], on_error="item").json()["data"]
    assert [item["code"] for item in data] == ["undecodable", "empty_input"]
    tensors = load(post(client, "reconstructions", [b"x"], on_error="item", headers=SAFETENSORS).content)
    assert np.isnan(tensors["reconstruction"]).all()
    assert tensors["reconstruction"].shape == (1, 16, 16, 1)


def test_bad_numbers_keep_their_place(client: httpx2.Client, batch: Array) -> None:
    numbers = batch.tolist()
    numbers[2][0][0] = 256
    numbers[4][0] = [1, 2]
    numbers[5][0][0] = "x"
    response = client.post("/v1/embeddings", json={"model": "tiny", "input": numbers, "on_error": "item"})
    codes = [item.get("code") for item in response.json()["data"]]
    assert codes == [None, None, "wrong_dtype", None, "undecodable", "undecodable", None]
