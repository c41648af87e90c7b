"""POST /v1/consistency: how far posteriors move under the model's own transformations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from safetensors.numpy import load

from isolatent_export import Bundle
from isolatent_export.manifest import ImageInput
from isolatent_export.runtime import OnnxRuntime
from isolatent_serve import consistency, schemas
from isolatent_serve.problems import Problem
from isolatent_train.evaluation.consistency import consistency as evaluated
from isolatent_train.posterior import DiagonalGaussian
from support import export_untrained, export_untrained_cloud

torch = pytest.importorskip("torch")

Array = np.ndarray[Any, Any]
NPY = {"Content-Type": "application/x-npy"}
SAFETENSORS = {"Accept": "application/x-safetensors"}
CHAIN = ({"kind": "rotate", "axis": "any", "degrees": 30.0}, {"kind": "scale"}, {"kind": "jitter"}, {"kind": "dropout"})


def ask(client: httpx2.Client, pngs: list[bytes], headers: dict[str, str] | None = None, **options: Any) -> Any:
    files = [("input", (f"{index}.png", png)) for index, png in enumerate(pngs)]
    params = {"model": "tiny", **options}
    return client.post("/v1/consistency", params=params, files=files, headers=headers or {})


def gaussian(posterior: tuple[Array, Array]) -> DiagonalGaussian:
    return DiagonalGaussian(*(torch.from_numpy(np.array(side)) for side in posterior))


def test_a_consistency_has_two_numbers_and_one_shape(client: httpx2.Client, pngs: list[bytes]) -> None:
    response = ask(client, pngs)
    assert response.status_code == 200, response.text
    schemas.ConsistencyList.model_validate_json(response.content)
    answer = response.json()
    assert [item["index"] for item in answer["data"]] == list(range(7))
    assert all(item["kl"] > 0 for item in answer["data"])
    scales = [item["kl"] / item["normalized"] for item in answer["data"]]
    np.testing.assert_allclose(scales, scales[0], rtol=1e-5)


def test_the_same_request_has_the_same_answer_in_any_company(client: httpx2.Client, pngs: list[bytes]) -> None:
    together = ask(client, pngs).json()["data"]
    assert ask(client, pngs).json()["data"] == together
    alone = [ask(client, [png]).json()["data"][0]["kl"] for png in pngs]
    np.testing.assert_allclose([item["kl"] for item in together], alone, rtol=1e-3)


def test_more_copies_are_another_estimate_of_the_same(client: httpx2.Client, png: bytes) -> None:
    default, five, one, many = (ask(client, [png], **given).json()["data"][0]["kl"] for given in COPIES)
    assert default == five
    assert len({five, one, many}) == 3
    assert many == pytest.approx(five, rel=1)


COPIES: tuple[dict[str, Any], ...] = ({}, {"samples": 5}, {"samples": 1}, {"samples": 32})


@pytest.mark.parametrize("samples", ["0", "33", "-1", "x", "1.5"])
def test_the_number_of_copies_is_bounded(client: httpx2.Client, png: bytes, samples: str) -> None:
    response = ask(client, [png], samples=samples)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_option")


def test_other_outputs_take_no_samples(client: httpx2.Client, png: bytes) -> None:
    response = client.post("/v1/posteriors?model=tiny&samples=3", files={"input": png})
    assert response.json()["code"] == "unknown_field"


def test_the_figures_are_those_of_the_evaluation(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    golden, graphs, copies = bundle.golden(), OnnxRuntime(bundle), []
    computation = consistency.of(bundle, 3)

    class Noting:
        def encode(self, items: Array) -> tuple[Array, Array]:
            copies.append(graphs.encode(items))
            return copies[-1]

        def decode(self, latents: Array) -> Array:
            return latents

    tensors = computation(Noting(), golden.input)
    original, *moved = [gaussian(posterior) for posterior in copies]
    expected = evaluated(original, moved)
    assert len(moved) == 3
    assert tensors["kl"].mean() == pytest.approx(expected["consistency_kl"], rel=1e-4)
    assert tensors["normalized"].mean() == pytest.approx(expected["consistency_kl_normalized"], rel=1e-3)


def test_safetensors_and_bad_items(client: httpx2.Client, pngs: list[bytes]) -> None:
    tensors = load(ask(client, [pngs[0], b"broken"], SAFETENSORS, on_error="item").content)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"kl": (2,), "normalized": (2,)}
    assert [bool(np.isnan(value)) for value in tensors["kl"]] == [False, True]


def test_clouds_have_a_consistency_too(
    start: Callable[..., str], tmp_path_factory: pytest.TempPathFactory, npy: Callable[[Array], bytes]
) -> None:
    path = export_untrained_cloud(tmp_path_factory.mktemp("bundles") / "moved", transforms=CHAIN).path
    clouds = np.random.default_rng(3).normal(size=(70, 100, 3)).astype(np.float32)
    answer = httpx2.post(start(path) + "/v1/consistency", content=npy(clouds), headers=NPY | SAFETENSORS)
    tensors = load(answer.content)
    assert (tensors["kl"].shape, bool((tensors["kl"] > 0).all())) == ((70,), True)


def test_an_unknown_transformation_is_named(client: httpx2.Client, npy: Callable[[Array], bytes]) -> None:
    cloud = np.random.default_rng(3).normal(size=(1, 100, 3)).astype(np.float32)
    response = client.post("/v1/consistency?model=tiny-cloud", content=npy(cloud), headers=NPY)
    assert (response.status_code, response.json()["code"]) == (422, "consistency_unavailable")
    assert "'rotation'" in response.json()["detail"]


def test_a_model_without_transformations_says_so(start: Callable[..., str], tmp_path_factory: Any, png: bytes) -> None:
    spec = ImageInput(height=16, width=16, channels=1)
    path = export_untrained(tmp_path_factory.mktemp("bundles") / "still", spec, latent=8, transforms=()).path
    response = httpx2.post(start(path) + "/v1/consistency", files={"input": png})
    assert (response.status_code, response.json()["code"]) == (422, "consistency_unavailable")
    assert response.json()["detail"].startswith("still has no transformations")


def test_a_model_that_tells_nothing_apart_says_so(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency, "reference", lambda *_: 0.0)
    bundle = Bundle.open(bundle_path)
    with pytest.raises(Problem, match="consistency_unavailable"):
        consistency.of(bundle, 1)(OnnxRuntime(bundle), bundle.golden().input)


def test_a_bundle_whose_files_have_gone_says_so(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    lost = Bundle(bundle_path / "elsewhere", bundle.manifest)
    with pytest.raises(Problem, match="no such directory"):
        consistency.of(lost, 1)(OnnxRuntime(bundle), bundle.golden().input)
