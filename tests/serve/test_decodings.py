"""POST /v1/decodings: latents in, pictures or clouds out."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
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
TINY, CLOUD = {"model": "tiny"}, {"model": "tiny-cloud"}
NPY = {"Content-Type": "application/x-npy"}
SAFETENSORS = {"Accept": "application/x-safetensors"}


@pytest.fixture(scope="session")
def latents() -> Array:
    """Five latents (5, 8) float32, all different."""
    return np.random.default_rng(11).normal(size=(5, 8)).astype(np.float32)


def ask(client: httpx2.Client, value: Any, **options: Any) -> httpx2.Response:
    headers = options.pop("headers", {})
    return client.post("/v1/decodings", json={"input": value, **TINY, **options}, headers=headers)


def tensor(response: httpx2.Response) -> Array:
    assert response.status_code == 200, response.text
    return load(response.content)["decoding"]


def test_a_decoding_is_what_the_decoder_says(client: httpx2.Client, latents: Array, bundle_path: Path) -> None:
    pixels = tensor(ask(client, latents.tolist(), headers=SAFETENSORS))
    np.testing.assert_allclose(pixels, OnnxRuntime(Bundle.open(bundle_path)).decode(latents), atol=1e-5)
    assert (pixels.shape, pixels.min() >= 0, pixels.max() <= 1) == ((5, 16, 16, 1), True, True)


def test_a_cloud_model_decodes_to_points(client: httpx2.Client, latents: Array, cloud_bundle_path: Path) -> None:
    points = tensor(ask(client, latents.tolist(), **CLOUD, headers=SAFETENSORS))
    np.testing.assert_allclose(points, OnnxRuntime(Bundle.open(cloud_bundle_path)).decode(latents), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npy_is_the_same_as_json(
    client: httpx2.Client, latents: Array, npy: Callable[[Array], bytes], dtype: type
) -> None:
    expected = tensor(ask(client, latents.tolist(), headers=SAFETENSORS))
    arrays: list[Array] = [latents.astype(dtype), np.asfortranarray(latents, dtype)]
    for array in arrays:
        answer = client.post("/v1/decodings", params=TINY, content=npy(array), headers=NPY | SAFETENSORS)
        assert np.array_equal(tensor(answer), expected)


def test_one_latent_needs_no_list_around_it(
    client: httpx2.Client, latents: Array, npy: Callable[[Array], bytes]
) -> None:
    alone = ask(client, latents[0].tolist()).json()
    assert (len(alone["data"]), alone["usage"]) == (1, {"inputs": 1})
    assert ask(client, latents[:1].tolist()).json() == alone
    assert client.post("/v1/decodings", params=TINY, content=npy(latents[0]), headers=NPY).json() == alone


def test_a_decoded_mean_is_the_reconstruction(client: httpx2.Client, png: bytes) -> None:
    def answer(path: str) -> Any:
        return client.post(f"/v1/{path}", params=TINY, files={"input": png}).json()["data"][0]

    (decoded,) = ask(client, answer("embeddings")["embedding"]).json()["data"]
    rebuilt = answer("reconstructions")
    assert decoded["shape"] == rebuilt["shape"]
    np.testing.assert_allclose(decoded["decoding"], rebuilt["reconstruction"], atol=1e-5)


def test_answers_are_what_openapi_says(client: httpx2.Client, latents: Array) -> None:
    for model in (TINY, CLOUD):
        for options in ({}, {"encoding_format": "base64"}):
            schemas.DecodingList.model_validate_json(ask(client, latents.tolist(), **model, **options).content)
    mixed = [*latents.tolist(), [1, 2]]
    schemas.DecodingList.model_validate_json(ask(client, mixed, on_error="item").content)


def test_openapi_describes_numbers_only(client: httpx2.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/decodings"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "application/x-npy"}
    assert {"image/png", "model/ply"} <= operation["responses"]["200"]["content"].keys()


def test_one_decoding_can_be_a_picture_an_array_or_a_cloud(client: httpx2.Client, latents: Array) -> None:
    one = latents[0].tolist()
    pixels = tensor(ask(client, one, headers=SAFETENSORS))
    picture = Image.open(io.BytesIO(ask(client, one, headers={"Accept": "image/png"}).content))
    np.testing.assert_allclose(np.asarray(picture), pixels[0, :, :, 0] * 255, atol=0.5001)
    array: Array = np.load(io.BytesIO(ask(client, one, headers={"Accept": "application/x-npy"}).content))
    assert np.array_equal(array, pixels)
    ply = ask(client, one, **CLOUD, headers={"Accept": "model/ply"}).content
    assert ply.endswith(tensor(ask(client, one, **CLOUD, headers=SAFETENSORS)).tobytes())


@pytest.mark.parametrize(
    ("value", "code", "pointer", "says"),
    [
        ([1.0] * 7, "wrong_shape", "/input", "7 numbers, the model's latents have 8"),
        ([[0.0] * 8, [0.0] * 9], "wrong_shape", "/input/1", "9 numbers, the model's latents have 8"),
        ([[0.0] * 7 + [1e39]], "non_finite", "/input/0", "finite"),
        ([0.0] * 7 + [True], "undecodable", "/input", "8 numbers"),
        ([[0.0] * 8, [[0.0] * 8]], "undecodable", "/input/1", "8 numbers"),
        ([[0.0] * 8, 3], "undecodable", "/input/1", "8 numbers"),
        ("data:image/png;base64,AAAA", "undecodable", "/input", "8 numbers"),
        ({"latent": 1}, "undecodable", "/input", "8 numbers"),
        ([], "empty_input", "/input", "at least one"),
        ([[]], "wrong_shape", "/input/0", "0 numbers"),
    ],
)
def test_what_is_no_latent_is_named(client: httpx2.Client, value: Any, code: str, pointer: str, says: str) -> None:
    response = ask(client, value)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, code)
    assert problem["errors"][0]["pointer"] == pointer
    assert says in problem["detail"]


@pytest.mark.parametrize(
    ("array", "code", "pointer"),
    [
        (np.zeros((2, 9), np.float32), "wrong_shape", "/input"),
        (np.zeros((1, 2, 8), np.float32), "wrong_shape", "/input"),
        (np.float32(1), "wrong_shape", "/input"),
        (np.zeros((0, 8), np.float32), "empty_input", "/input"),
        (np.zeros((2, 8), np.int64), "wrong_dtype", "/input"),
        (np.zeros((2, 8), ">f4"), "wrong_dtype", "/input"),
        (np.array([[0.0] * 8, [np.nan] * 8], np.float32), "non_finite", "/input/1"),
        (np.array([1e300] * 8), "non_finite", "/input"),
    ],
)
def test_a_bad_npy_is_named(
    client: httpx2.Client, npy: Callable[[Array], bytes], array: Array, code: str, pointer: str
) -> None:
    response = client.post("/v1/decodings", params=TINY, content=npy(array), headers=NPY)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert response.json()["errors"][0]["pointer"] == pointer


def test_bad_latents_keep_their_place(client: httpx2.Client, latents: Array) -> None:
    mixed = [latents[0].tolist(), [1.0], latents[1].tolist()]
    first, error, last = ask(client, mixed, on_error="item").json()["data"]
    assert (error["object"], error["index"], error["code"]) == ("error", 1, "wrong_shape")
    good = ask(client, latents[:2].tolist()).json()["data"]
    assert [first["decoding"], last["decoding"]] == [item["decoding"] for item in good]
    assert np.isnan(tensor(ask(client, [[1.0]], on_error="item", headers=SAFETENSORS))).all()


@pytest.mark.parametrize("media_type", ["image/png", "model/ply", "text/plain", "application/octet-stream"])
def test_files_are_no_latents(client: httpx2.Client, png: bytes, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    response = client.post("/v1/decodings", params=TINY, content=png, headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert response.json()["detail"].endswith("send one of application/json, application/x-npy")


def test_forms_are_no_latents(client: httpx2.Client, png: bytes) -> None:
    assert client.post("/v1/decodings", params=TINY, files={"input": png}).status_code == 415


def test_the_limit_of_items_holds(start: Callable[..., str], npy: Callable[[Array], bytes]) -> None:
    address, three = start(items=2) + "/v1/decodings", np.zeros((3, 8), np.float32)
    answers = [
        httpx2.post(address, json={"input": three.tolist()}),
        httpx2.post(address, content=npy(three), headers=NPY),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(413, "too_many_items")] * 2


def test_many_latents_come_in_order(client: httpx2.Client, latents: Array, npy: Callable[[Array], bytes]) -> None:
    many = np.tile(latents, (40, 1))  # 200 items: more than one run
    answer = client.post("/v1/decodings", params=TINY, content=npy(many), headers=NPY | SAFETENSORS)
    few = tensor(ask(client, latents.tolist(), headers=SAFETENSORS))
    np.testing.assert_allclose(tensor(answer), np.tile(few, (40, 1, 1, 1)), atol=1e-5)
