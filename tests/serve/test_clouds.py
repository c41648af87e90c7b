"""Point clouds: every encoding gives the same bits, every answer its own format, next to image models."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest
from safetensors.numpy import load

from isolatent_export import Bundle
from isolatent_export.inputs import Limits, decode_item
from isolatent_export.runtime import OnnxRuntime
from isolatent_serve import schemas
from isolatent_serve.outputs import chamfer

Array = np.ndarray[Any, Any]
NPY = {"Content-Type": "application/x-npy"}
PLY = {"Content-Type": "model/ply"}
TENSORS = {"posteriors": "mean", "embeddings": "embedding", "reconstructions": "reconstruction"}


@pytest.fixture(scope="module")
def points() -> Array:
    """A cloud of as many points as the model takes (64, 3), so that nothing is sampled."""
    return np.random.default_rng(3).normal(size=(64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def ply(points: Array) -> bytes:
    """The cloud as a binary PLY file."""
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
    header += "property float x\nproperty float y\nproperty float z\nend_header\n"
    return header.encode() + points.tobytes()


@pytest.fixture(scope="module")
def plys(ply: bytes, points: Array) -> list[bytes]:
    """Five clouds as files, all different."""
    head = ply[: -points.nbytes]
    return [head + (points * (1, 1, scale)).astype(np.float32).tobytes() for scale in (1, 2, 3, 4, 5)]


def post(client: httpx2.Client, path: str = "posteriors", **body: Any) -> httpx2.Response:
    params = {"model": "tiny-cloud", **body.pop("params", {})}
    return client.post(f"/v1/{path}", params=params, **body)


def answer(client: httpx2.Client, path: str = "posteriors", **body: Any) -> dict[str, Any]:
    response = post(client, path, **body)
    assert response.status_code == 200, response.text
    facts: dict[str, Any] = response.json()
    return facts


@pytest.fixture
def expected(client: httpx2.Client, ply: bytes) -> dict[str, Any]:
    """The answer for the cloud, sent as a raw PLY."""
    return answer(client, content=ply, headers=PLY)


def as_text(points: Array, separator: str = " ") -> bytes:
    return "".join(separator.join(str(value) for value in point) + "\n" for point in points.tolist()).encode()


def test_a_raw_file_is_what_the_model_makes_of_its_points(
    ply: bytes, expected: dict[str, Any], cloud_bundle_path: Any
) -> None:
    bundle = Bundle.open(cloud_bundle_path)
    mean, _ = OnnxRuntime(bundle).encode(decode_item(ply, bundle.manifest.input, Limits())[None])
    np.testing.assert_allclose(expected["data"][0]["mean"], mean[0], atol=1e-5)
    assert expected["usage"] == {"inputs": 1}


def test_raw_bodies_of_every_type_are_the_same(client: httpx2.Client, ply: bytes, expected: dict[str, Any]) -> None:
    for media_type in ("model/ply", "model/obj", "text/plain", "application/octet-stream", "MODEL/X; a=b", "image/png"):
        assert answer(client, content=ply, headers={"Content-Type": media_type}) == expected


def test_multipart_base64_and_data_urls_are_the_same(
    client: httpx2.Client, ply: bytes, expected: dict[str, Any]
) -> None:
    text = base64.b64encode(ply).decode()
    assert answer(client, files={"input": ("cloud.obj", ply, "model/obj")}) == expected
    for value in (text, [text], f"data:model/ply;base64,{text}", f"data:;base64,{text}"):
        assert answer(client, json={"input": value}) == expected


def test_numbers_are_the_same(client: httpx2.Client, points: Array, expected: dict[str, Any]) -> None:
    assert answer(client, json={"input": points.tolist()}) == expected
    assert answer(client, json={"input": [points.tolist()]}) == expected


def test_npy_is_the_same(
    client: httpx2.Client, points: Array, expected: dict[str, Any], npy: Callable[[Array], bytes]
) -> None:
    for array in (points, points[None], np.asfortranarray(points)):
        assert answer(client, content=npy(array), headers=NPY) == expected
    assert answer(client, files={"input": npy(points)}) == expected


def test_text_is_the_same(client: httpx2.Client, points: Array, expected: dict[str, Any]) -> None:
    assert answer(client, content=as_text(points), headers={"Content-Type": "text/plain"}) == expected


def test_several_clouds_come_in_input_order(client: httpx2.Client, plys: list[bytes]) -> None:
    alone = [answer(client, content=ply, headers=PLY)["data"][0]["mean"] for ply in plys]
    together = answer(client, files=[("input", ply) for ply in plys * 3])["data"]
    np.testing.assert_allclose([posterior["mean"] for posterior in together], alone * 3, atol=1e-5)


def test_lists_may_mix_files_and_numbers_of_any_count(client: httpx2.Client, ply: bytes, points: Array) -> None:
    text = base64.b64encode(ply).decode()
    data = answer(client, json={"input": [points[:9].tolist(), text, points.tolist(), points[:30].tolist()]})["data"]
    assert [posterior["index"] for posterior in data] == [0, 1, 2, 3]
    np.testing.assert_allclose(data[1]["mean"], data[2]["mean"], atol=1e-5)
    assert data[0]["mean"] != data[3]["mean"]


def test_one_bad_file_among_good_ones_keeps_its_place(client: httpx2.Client, plys: list[bytes]) -> None:
    files = [("input", data) for data in (plys[0], b"broken", plys[1])]
    first, error, last = answer(client, files=files, params={"on_error": "item"})["data"]
    assert (error["object"], error["code"], first["index"], last["index"]) == ("error", "undecodable", 0, 2)
    assert post(client, files=files).json()["errors"][0]["pointer"] == "/input/1"


@pytest.mark.parametrize("path", TENSORS)
def test_every_format_has_the_same_bits(client: httpx2.Client, plys: list[bytes], path: str) -> None:
    files, name = [("input", ply) for ply in plys], TENSORS[path]
    floats = answer(client, path, files=files)["data"]
    packed = answer(client, path, files=files, params={"encoding_format": "base64"})["data"]
    tensor = load(post(client, path, files=files, headers={"Accept": "application/x-safetensors"}).content)[name]
    assert np.array_equal(np.array([item[name] for item in floats], np.float32), tensor)
    assert b"".join(base64.b64decode(item[name]) for item in packed) == tensor.tobytes()
    if path != "posteriors":
        content = post(client, path, files=files, headers={"Accept": "application/x-npy"}).content
        assert np.load(io.BytesIO(content), allow_pickle=False).tobytes() == tensor.tobytes()
    schema = getattr(schemas, path.removesuffix("s").capitalize() + "List")
    schema.model_validate({"object": "list", "model": "m", "version": "1", "data": floats, "usage": usage(path, 5)})


def usage(path: str, count: int) -> dict[str, int]:
    return {"inputs": count, **({"prompt_tokens": 0, "total_tokens": 0} if path == "embeddings" else {})}


def test_reconstructions_carry_their_shape_and_chamfer_distance(
    client: httpx2.Client, ply: bytes, cloud_bundle_path: Any
) -> None:
    (item,) = answer(client, "reconstructions", content=ply, headers=PLY)["data"]
    rebuilt = np.array(item["reconstruction"])
    assert item["shape"] == list(rebuilt.shape) == [49, 3]
    cloud = decode_item(ply, Bundle.open(cloud_bundle_path).manifest.input, Limits()).astype(float)
    squared = ((cloud[:, None] - rebuilt[None]) ** 2).sum(axis=2)
    assert item["error"] == pytest.approx(squared.min(axis=1).mean() + squared.min(axis=0).mean(), rel=1e-6)


def test_the_chamfer_distance_is_exact_far_from_the_origin_and_in_strips() -> None:
    cloud = np.random.default_rng(0).normal(size=(3000, 3)) + 1e6
    assert chamfer(cloud, cloud[::-1]) == pytest.approx(0, abs=1e-12)
    moved = chamfer(cloud[:1], cloud[:1] + np.array([3, 4, 0]))
    assert moved == pytest.approx(2 * 25)


def test_one_reconstruction_can_be_a_ply_file(client: httpx2.Client, ply: bytes) -> None:
    response = post(client, "reconstructions", content=ply, headers={**PLY, "Accept": "model/ply"})
    (item,) = answer(client, "reconstructions", content=ply, headers=PLY)["data"]
    head, _, body = response.content.partition(b"end_header\n")
    assert response.headers["Content-Type"] == "model/ply"
    assert head.startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 49\n")
    assert list(struct.iter_unpack("<3f", body)) == [tuple(np.float32(point)) for point in item["reconstruction"]]
    assert answer(client, content=response.content, headers=PLY)["usage"] == {"inputs": 1}  # and we read it again


@pytest.mark.parametrize(
    ("path", "accept", "count"),
    [("reconstructions", "image/png", 1), ("reconstructions", "model/ply", 2), ("posteriors", "application/x-npy", 1)],
)
def test_formats_that_cannot_carry_the_answer_are_refused(
    client: httpx2.Client, ply: bytes, path: str, accept: str, count: int
) -> None:
    response = post(client, path, files=[("input", ply)] * count, headers={"Accept": accept})
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")


def test_npy_answers_have_no_place_for_errors(client: httpx2.Client, ply: bytes, png: bytes) -> None:
    for model, good in (("tiny-cloud", ply), ("tiny", png)):
        files, params = [("input", good), ("input", b"broken")], {"model": model, "on_error": "item"}
        response = client.post("/v1/embeddings", params=params, files=files, headers={"Accept": "application/x-npy"})
        assert (response.status_code, response.json()["code"]) == (422, "undecodable")


def test_images_have_npy_answers_too(client: httpx2.Client, pngs: list[bytes]) -> None:
    files, headers = [("input", png) for png in pngs], {"Accept": "application/x-npy"}
    content = client.post("/v1/reconstructions?model=tiny", files=files, headers=headers).content
    assert np.load(io.BytesIO(content), allow_pickle=False).shape == (7, 16, 16, 1)


def test_the_other_modality_is_refused_by_name(client: httpx2.Client, ply: bytes, png: bytes) -> None:
    for model, file, takes in (("tiny", ply, "PNG"), ("tiny-cloud", png, "PLY")):
        for headers in (PLY, {"Content-Type": "image/png"}):
            problem = client.post("/v1/posteriors", params={"model": model}, content=file, headers=headers).json()
            assert (problem["status"], problem["code"]) == (422, "undecodable")
            assert takes in problem["detail"]


def test_arrays_of_the_other_modality_are_refused(
    client: httpx2.Client, points: Array, grey: Array, npy: Callable[[Array], bytes]
) -> None:
    for model, array, takes in (("tiny", points, "16, 16"), ("tiny-cloud", grey, "3")):
        for body in ({"content": npy(array), "headers": NPY}, {"json": {"input": array.tolist()}}):
            problem = client.post("/v1/posteriors", params={"model": model}, **body).json()
            assert problem["code"] in ("wrong_shape", "wrong_dtype")
            assert takes in problem["detail"]


def test_useless_clouds_are_refused_with_the_reason(client: httpx2.Client, points: Array) -> None:
    not_a_number = points.copy()
    not_a_number[5, 1] = np.nan
    for array, code in ((points[:1], "degenerate"), (points[:1].repeat(9, axis=0), "degenerate")):
        for body in ({"content": as_text(array), "headers": PLY}, {"json": {"input": array.tolist()}}):
            assert post(client, **body).json()["code"] == code
    assert post(client, content=as_text(not_a_number), headers=PLY).json()["code"] == "non_finite"


def test_too_many_points_are_refused(start: Callable[..., str], cloud_bundle_path: Any, npy: Any) -> None:
    url = start(cloud_bundle_path, points=1000)
    cloud = np.random.default_rng(0).normal(size=(1001, 3)).astype(np.float32)
    for body in (
        {"content": as_text(cloud), "headers": PLY},
        {"content": npy(cloud), "headers": NPY},
        {"json": {"input": cloud.tolist()}},
    ):
        response = httpx2.post(f"{url}/v1/posteriors", **body)
        assert (response.status_code, response.json()["code"]) == (413, "too_many_points"), response.text
