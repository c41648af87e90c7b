"""The same picture in every encoding a request may have."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
import pytest

TINY = {"model": "tiny"}


def post(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/posteriors", params=TINY, **body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.fixture
def expected(client: httpx2.Client, png: bytes) -> dict[str, Any]:
    """The answer for the grey picture, sent as a raw PNG."""
    return post(client, content=png, headers={"Content-Type": "image/png"})


def test_a_raw_png_gives_one_posterior(expected: dict[str, Any]) -> None:
    (posterior,) = expected.pop("data")
    assert expected == {"object": "list", "model": "tiny", "version": "1", "usage": {"inputs": 1}}
    assert (posterior["object"], posterior["index"]) == ("posterior", 0)
    assert len(posterior["mean"]) == len(posterior["variance"]) == 8


def test_octet_stream_and_any_image_type_are_the_same(
    client: httpx2.Client, png: bytes, expected: dict[str, Any]
) -> None:
    for media_type in ("application/octet-stream", "image/jpeg", "IMAGE/PNG; q=1"):
        assert post(client, content=png, headers={"Content-Type": media_type}) == expected


def test_multipart_is_the_same(client: httpx2.Client, png: bytes, expected: dict[str, Any]) -> None:
    assert post(client, files={"input": ("digit.png", png, "image/png")}) == expected


def test_base64_json_is_the_same(client: httpx2.Client, png: bytes, expected: dict[str, Any]) -> None:
    text = base64.b64encode(png).decode()
    assert post(client, json={"input": text}) == expected
    assert post(client, json={"input": [text]}) == expected


def test_a_data_url_is_the_same(client: httpx2.Client, png: bytes, expected: dict[str, Any]) -> None:
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    assert post(client, json={"input": url}) == expected


def test_nested_numbers_are_the_same(
    client: httpx2.Client, grey: np.ndarray[Any, Any], expected: dict[str, Any]
) -> None:
    for numbers in (grey, grey[None], grey[..., None], grey[None, ..., None], grey.astype(float)):
        assert post(client, json={"input": numbers.tolist()}) == expected


def test_npy_is_the_same(
    client: httpx2.Client,
    grey: np.ndarray[Any, Any],
    expected: dict[str, Any],
    npy: Callable[[np.ndarray[Any, Any]], bytes],
) -> None:
    for array in (grey, grey[None], grey[None, ..., None], np.asfortranarray(grey)):
        assert post(client, content=npy(array), headers={"Content-Type": "application/x-npy"}) == expected
    assert post(client, content=npy(grey), headers={"Content-Type": "application/octet-stream"}) == expected
    assert post(client, files={"input": npy(grey)}) == expected


def test_json_lists_may_mix_kinds(
    client: httpx2.Client, png: bytes, grey: np.ndarray[Any, Any], expected: dict[str, Any]
) -> None:
    text = base64.b64encode(png).decode()
    answer = post(client, json={"input": [text, grey.tolist(), f"data:;base64,{text}"]})
    assert answer["usage"] == {"inputs": 3}
    for posterior in answer["data"]:
        np.testing.assert_allclose(posterior["mean"], expected["data"][0]["mean"], atol=1e-5)


def test_results_come_in_input_order(client: httpx2.Client, pngs: list[bytes]) -> None:
    alone = [post(client, content=png, headers={"Content-Type": "image/png"})["data"][0]["mean"] for png in pngs]
    together = post(client, files=[("input", (f"{i}.png", png)) for i, png in enumerate(pngs)])["data"]
    assert [posterior["index"] for posterior in together] == list(range(7))
    np.testing.assert_allclose([posterior["mean"] for posterior in together], alone, atol=1e-5)


def test_results_of_many_chunks_come_in_input_order(
    client: httpx2.Client, batch: np.ndarray[Any, Any], npy: Callable[[np.ndarray[Any, Any]], bytes]
) -> None:
    few = post(client, json={"input": batch.tolist()})["data"]
    many = np.tile(batch, (20, 1, 1))  # 140 items: more than two runs of 64
    answer = post(client, content=npy(many), headers={"Content-Type": "application/x-npy"})["data"]
    expected = [posterior["mean"] for posterior in few] * 20
    np.testing.assert_allclose([posterior["mean"] for posterior in answer], expected, atol=1e-5)


def test_requests_at_the_same_time_get_their_own_answers(client: httpx2.Client, pngs: list[bytes]) -> None:
    def ask(png: bytes) -> Any:
        return post(client, content=png, headers={"Content-Type": "image/png"})["data"][0]["mean"]

    expected = [ask(png) for png in pngs]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, pngs * 20)) == expected * 20


def test_several_models_answer_side_by_side(client: httpx2.Client, png: bytes) -> None:
    headers = {"Content-Type": "image/png"}
    sizes = {}
    for model in ("tiny", "tiny-colour"):
        answer = client.post("/v1/embeddings", params={"model": model}, content=png, headers=headers).json()
        sizes[answer["model"]] = len(answer["data"][0]["embedding"])
    assert sizes == {"tiny": 8, "tiny-colour": 6}


def test_options_may_stand_in_the_body_or_the_query(client: httpx2.Client, png: bytes) -> None:
    text = base64.b64encode(png).decode()
    in_json = client.post("/v1/embeddings", json={"model": "tiny", "encoding_format": "base64", "input": text})
    in_form = client.post("/v1/embeddings", data={"model": "tiny", "encoding_format": "base64"}, files={"input": png})
    in_query = client.post("/v1/embeddings?model=tiny&encoding_format=base64", json={"input": text})
    assert in_json.json() == in_form.json() == in_query.json()
    assert isinstance(in_json.json()["data"][0]["embedding"], str)


def test_the_bodys_option_wins_over_the_querys(client: httpx2.Client, png: bytes) -> None:
    form = {"model": "tiny-colour"}
    response = client.post("/v1/embeddings", params=TINY, data=form, files={"input": png})
    assert response.json()["model"] == "tiny-colour"


def test_a_chunked_body_is_read(client: httpx2.Client, png: bytes, expected: dict[str, Any]) -> None:
    pieces = iter([png[:50], png[50:]])
    assert post(client, content=pieces, headers={"Content-Type": "image/png"}) == expected


def test_a_model_that_is_alone_need_not_be_named(start: Callable[..., str], png: bytes) -> None:
    response = httpx2.post(start() + "/v1/embeddings", files={"input": png})
    assert response.json()["model"] == "tiny"
