"""The Open Inference Protocol as Triton's own client speaks it, and the same numbers as everywhere."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from safetensors.numpy import load

from isolatent import __version__
from isolatent_export import Bundle
from isolatent_serve import outputs
from isolatent_serve.protocol import outputs as protocol_outputs
from isolatent_serve.protocol import schemas
from protocol_support import HEADER_LENGTH, INFER, pixels, post_binary

Array = np.ndarray[Any, Any]


@pytest.fixture
def tritons(client: httpx2.Client) -> Iterator[triton.InferenceServerClient]:
    """Triton's own client."""
    with triton.InferenceServerClient(client.base_url.netloc.decode(), concurrency=4) as its:
        yield its


@pytest.fixture
def cloud() -> Array:
    """Two clouds of more points than the model takes (2, 100, 3)."""
    return np.random.default_rng(3).normal(size=(2, 100, 3)).astype(np.float32)


def tensor(array: Array, datatype: str, *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput("input", list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def files(contents: list[bytes]) -> triton.InferInput:
    return tensor(np.array(contents, np.object_), "BYTES")


def wanted(*names: str, binary: bool = True) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def native(client: httpx2.Client, path: str, model: str, **body: Any) -> dict[str, Array]:
    """What /v1 answers to the same."""
    accept = {"Accept": "application/x-safetensors", **body.pop("headers", {})}
    response = client.post(f"/v1/{path}", params={"model": model}, headers=accept, **body)
    assert response.status_code == 200, response.text
    return load(response.content)


def test_tritons_client_sees_health_and_metadata(tritons: triton.InferenceServerClient) -> None:
    assert tritons.is_server_live()
    assert tritons.is_server_ready()
    assert tritons.is_model_ready("tiny")
    assert tritons.is_model_ready("tiny", "1")
    assert not tritons.is_model_ready("tiny", "2")
    assert not tritons.is_model_ready("big")
    assert tritons.get_server_metadata() == {
        "name": "isolatent",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }
    assert [(entry["name"], entry["state"]) for entry in tritons.get_model_repository_index()] == [
        ("tiny", "READY"),
        ("tiny-colour", "READY"),
        ("tiny-cloud", "READY"),
    ]


def test_metadata_names_tensors_with_their_shapes(tritons: triton.InferenceServerClient) -> None:
    image, cloud = (tritons.get_model_metadata(name, "1") for name in ("tiny-colour", "tiny-cloud"))
    assert image["inputs"] == [{"name": "input", "datatype": "UINT8", "shape": [-1, 12, 20, 3]}]
    assert cloud["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, -1, 3]}]
    assert {output["name"]: output["shape"] for output in cloud["outputs"]} == {
        "mean": [-1, 8],
        "variance": [-1, 8],
        "kl": [-1],
        "embedding": [-1, 8],
        "reconstruction": [-1, 49, 3],
        "error": [-1],
    }
    assert image == tritons.get_model_metadata("tiny-colour")


def test_metadata_without_a_version_has_the_same_answers_as_the_client_expects(client: httpx2.Client) -> None:
    schemas.ServerMetadata.model_validate_json(client.get("/v2").content)
    schemas.ModelMetadata.model_validate_json(client.get("/v2/models/tiny").content)
    schemas.ModelReady.model_validate_json(client.get("/v2/models/tiny/ready").content)
    schemas.Live.model_validate_json(client.get("/v2/health/live").content)
    schemas.Ready.model_validate_json(client.get("/v2/health/ready").content)
    for entry in client.post("/v2/repository/index", json={"ready": True}).json():
        schemas.IndexEntry.model_validate(entry)
    assert client.get("/v2/").json() == client.get("/v2").json()


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_pixels_give_the_bits_of_v1(
    tritons: triton.InferenceServerClient,
    client: httpx2.Client,
    batch: Array,
    npy: Callable[[Array], bytes],
    binary_in: bool,
    binary_out: bool,
) -> None:
    its = tensor(batch[..., None], "UINT8", binary=binary_in)
    names = ("kl", "mean", "variance")
    result = tritons.infer("tiny", [its], outputs=wanted(*names, binary=binary_out), request_id="7", model_version="1")
    expected = native(client, "posteriors", "tiny", content=npy(batch), headers={"Content-Type": "application/x-npy"})
    for name in names:
        assert np.array_equal(result.as_numpy(name).astype(np.float32), expected[name])
    answer = result.get_response()
    assert [output["name"] for output in answer["outputs"]] == list(names)
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "tiny", "1")


@pytest.mark.parametrize("binary", [True, False])
def test_clouds_of_any_number_of_points_give_the_bits_of_v1(
    tritons: triton.InferenceServerClient,
    client: httpx2.Client,
    cloud: Array,
    npy: Callable[[Array], bytes],
    binary: bool,
) -> None:
    result = tritons.infer("tiny-cloud", [tensor(cloud, "FP32", binary=binary)], outputs=wanted("reconstruction"))
    headers = {"Content-Type": "application/x-npy"}
    expected = native(client, "reconstructions", "tiny-cloud", content=npy(cloud), headers=headers)
    assert np.array_equal(result.as_numpy("reconstruction"), expected["reconstruction"])


def test_files_are_decoded_as_everywhere(
    tritons: triton.InferenceServerClient, client: httpx2.Client, pngs: list[bytes], cloud: Array
) -> None:
    result = tritons.infer("tiny", [files(pngs)])
    expected = native(client, "posteriors", "tiny", files=[("input", png) for png in pngs])
    assert np.array_equal(result.as_numpy("mean"), expected["mean"])
    text = "".join(f"{x} {y} {z}\n" for x, y, z in cloud[0].tolist()).encode()
    column = tensor(np.array([[text]], np.object_), "BYTES")  # as for models with a batch axis in Triton
    expected = native(client, "embeddings", "tiny-cloud", files={"input": ("a.xyz", text)})
    found = tritons.infer("tiny-cloud", [column], outputs=wanted("embedding"))
    assert np.array_equal(found.as_numpy("embedding"), expected["embedding"])


def test_files_in_json_are_base64_or_data_urls(client: httpx2.Client, pngs: list[bytes]) -> None:
    texts = [base64.b64encode(png).decode() for png in pngs[:2]]
    request = pixels(datatype="BYTES", shape=[2], data=[texts[0], f"data:image/png;base64,{texts[1]}"])
    (mean, variance) = client.post(INFER, json=request).json()["outputs"]
    expected = native(client, "posteriors", "tiny", files=[("input", png) for png in pngs[:2]])
    assert np.array_equal(np.float32(mean["data"]).reshape(2, 8), expected["mean"])
    assert np.array_equal(np.float32(variance["data"]).reshape(2, 8), expected["variance"])


def test_mean_and_variance_come_by_default(tritons: triton.InferenceServerClient, grey: Array) -> None:
    result = tritons.infer("tiny", [tensor(grey[None], "UINT8")])  # grey pictures may leave out the channel
    answer = schemas.InferenceResponse.model_validate(result.get_response())
    assert [(output.name, output.shape) for output in answer.outputs] == [("mean", [1, 8]), ("variance", [1, 8])]
    assert answer.id is None
    assert result.as_numpy("mean").dtype == np.float32


def test_every_output_can_be_had_at_once(tritons: triton.InferenceServerClient, pngs: list[bytes]) -> None:
    names = [output["name"] for output in tritons.get_model_metadata("tiny")["outputs"]]
    together = tritons.infer("tiny", [files(pngs)], outputs=wanted(*reversed(names)))
    assert [output["name"] for output in together.get_response()["outputs"]] == names[::-1]
    for name in names:
        alone = tritons.infer("tiny", [files(pngs)], outputs=wanted(name)).as_numpy(name)
        np.testing.assert_array_equal(together.as_numpy(name), alone)


def test_outputs_say_one_by_one_whether_they_are_binary(client: httpx2.Client) -> None:
    request = pixels() | {
        "outputs": [{"name": "kl"}, {"name": "mean", "parameters": {"binary_data": False}}, {"name": "variance"}],
        "parameters": {"binary_data_output": True, "priority": 3, "unknown": [1]},
    }
    response = client.post(INFER, json=request)
    length = int(response.headers[HEADER_LENGTH])
    header = schemas.InferenceResponse.model_validate_json(response.content[:length])
    sizes = [output.parameters and output.parameters.binary_data_size for output in header.outputs]
    assert sizes == [4, None, 32]
    assert len(response.content) == length + 36
    assert response.headers["Content-Type"] == "application/octet-stream"


def test_tritons_async_clients_get_their_own_answers(
    tritons: triton.InferenceServerClient, client: httpx2.Client, pngs: list[bytes]
) -> None:
    expected = native(client, "posteriors", "tiny", files=[("input", png) for png in pngs])["mean"]
    waiting = [tritons.async_infer("tiny", [files([png])]) for png in pngs]
    means = [request.get_result().as_numpy("mean")[0] for request in waiting]
    np.testing.assert_allclose(means, expected, atol=1e-5)

    async def ask() -> list[Array]:
        async with triton_aio.InferenceServerClient(client.base_url.netloc.decode()) as its:
            results = await asyncio.gather(*(its.infer("tiny", [files([png])]) for png in pngs))
            return [result.as_numpy("mean")[0] for result in results]

    np.testing.assert_allclose(asyncio.run(ask()), expected, atol=1e-5)


def test_many_items_and_many_requests_share_the_engine(client: httpx2.Client, batch: Array) -> None:
    many = np.tile(batch, (20, 1, 1))  # 140 items: more than two batches
    request = pixels(shape=list(many.shape), data=None, parameters={"binary_data_size": many.nbytes})

    def ask(_: int) -> Any:
        return post_binary(client, request, many.tobytes()).json()["outputs"][0]["data"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(16)))
    first = np.float32(answers[0]).reshape(20, 7, 8)
    np.testing.assert_allclose(first, np.broadcast_to(first[0], first.shape), atol=1e-5)
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-5)


@pytest.mark.parametrize(
    ("model", "version", "names", "status", "words"),
    [
        ("big", "", ["mean"], "404", "served are: tiny, tiny-colour, tiny-cloud"),
        ("tiny", "2", ["mean"], "404", "no version '2' of model tiny; served is 1"),
        ("tiny", "", ["logits"], "400", "mean, variance, kl, embedding, reconstruction, error"),
        ("tiny", "", ["mean", "mean"], "400", "once each"),
        ("tiny-colour", "", ["mean"], "422", r"\(N, 12, 20, 3\)"),
        ("tiny-cloud", "", ["mean"], "422", "the model takes FP32"),
    ],
)
def test_tritons_client_reads_errors(
    tritons: triton.InferenceServerClient,
    grey: Array,
    model: str,
    version: str,
    names: list[str],
    status: str,
    words: str,
) -> None:
    with pytest.raises(triton.InferenceServerException, match=words) as caught:
        tritons.infer(model, [tensor(grey[None], "UINT8")], model_version=version, outputs=wanted(*names))
    assert caught.value.status() == status


def test_tritons_client_is_told_what_is_not_there(tritons: triton.InferenceServerClient, grey: Array) -> None:
    for ask in (tritons.get_model_config, tritons.get_inference_statistics, tritons.unload_model):
        with pytest.raises(triton.InferenceServerException, match="no such address"):
            ask("tiny")
    with pytest.raises(triton.InferenceServerException, match="uncompressed") as caught:
        tritons.infer("tiny", [tensor(grey[None], "UINT8")], request_compression_algorithm="gzip")
    assert caught.value.status() == "415"
    shared = triton.InferInput("input", [1, 16, 16, 1], "UINT8")
    shared.set_shared_memory("region", 256)
    with pytest.raises(triton.InferenceServerException, match="no memory is shared"):
        tritons.infer("tiny", [shared])
    classes = triton.InferRequestedOutput("mean", class_count=3)
    with pytest.raises(triton.InferenceServerException, match="classification"):
        tritons.infer("tiny", [tensor(grey[None], "UINT8")], outputs=[classes])


def test_the_first_bad_file_is_named(tritons: triton.InferenceServerClient, pngs: list[bytes]) -> None:
    with pytest.raises(triton.InferenceServerException, match=r"item 2 of input: .*\(2 items are bad\)"):
        tritons.infer("tiny", [files([*pngs[:2], b"broken", b"too"])])


class Counting:
    """Graphs that count what is asked of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def encode(self, inputs: Array) -> tuple[Array, Array]:
        self.calls.append("encode")
        return np.ones((len(inputs), 2), np.float32), np.zeros((len(inputs), 2), np.float32)

    def decode(self, latents: Array) -> Array:
        self.calls.append("decode")
        return np.zeros((len(latents), 2, 2, 1), np.float32)


@pytest.mark.parametrize(
    ("names", "calls"),
    [
        (["mean", "variance", "kl"], ["encode"]),
        (["mean", "embedding"], ["encode"]),
        (["reconstruction", "error", "mean", "embedding", "kl"], ["encode", "decode"]),
    ],
)
def test_each_graph_runs_once_whatever_is_wanted(bundle_path: Path, names: list[str], calls: list[str]) -> None:
    graphs = Counting()
    bundle = Bundle.open(bundle_path)
    compute, shapes = protocol_outputs.compute(bundle, names)
    tensors = compute(graphs, np.zeros((3, 2, 2, 1), np.uint8))
    assert set(names) <= tensors.keys() == shapes.keys()
    assert graphs.calls == calls
    assert protocol_outputs.compute(bundle, names) == protocol_outputs.compute(bundle, names[::-1])


def test_posteriors_share_batches_with_v1(bundle_path: Path) -> None:
    assert protocol_outputs.compute(Bundle.open(bundle_path), ["mean"])[0] is outputs.posterior


def test_openapis_examples_are_read(client: httpx2.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v2/models/{model}/infer"]["post"]
    assert list(operation["responses"]["default"]["content"]) == ["application/json"]
    content = operation["requestBody"]["content"]["application/json"]
    for name, example in content["examples"].items():
        response = client.post(INFER, json=example["value"])
        assert response.status_code == (422 if name == "pixels" else 200)  # these are 2 x 2, the model's 16 x 16
