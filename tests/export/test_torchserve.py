"""Bundles for TorchServe: the folder that is written, the handler alone, and a real TorchServe with both."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load, save

from isolatent.cli import main
from isolatent_export import Bundle, BundleError
from isolatent_export.bundle import file_digest
from isolatent_export.runtime import OnnxRuntime
from isolatent_export.torchserve import computing
from isolatent_export.torchserve.archive import CARRIED, write_archive
from isolatent_export.torchserve.handler import load as load_model
from isolatent_export.torchserve.requests import Refusal, Request
from isolatent_export.torchserve.store import CONFIG, START, Serving, write_store
from torchserve_support import TorchServer, environment, in_background, require, wait_until

Array = np.ndarray[Any, Any]

PNG, OCTETS, JSON, NPY = "image/png", "application/octet-stream", "application/json", "application/x-npy"
SAFETENSORS = "application/x-safetensors"


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return file.getvalue()


def pixels(seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)


def npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def settings(folder: Path) -> dict[str, str]:
    lines = (folder / CONFIG).read_text().replace("\\\n", "").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture
def unpacked(bundle_path: Path, tmp_path: Path) -> Path:
    """The archive of `tiny` as TorchServe unpacks it."""
    write_archive(Bundle.open(bundle_path), tmp_path / "tiny.mar")
    with zipfile.ZipFile(tmp_path / "tiny.mar") as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


# The folder


def test_the_same_bundle_gives_the_same_archive(bundle_path: Path, tmp_path: Path) -> None:
    for name in ("a.mar", "b.mar"):
        write_archive(Bundle.open(bundle_path), tmp_path / name)
    assert (tmp_path / "a.mar").read_bytes() == (tmp_path / "b.mar").read_bytes()


def test_an_archive_holds_the_bundles_own_files(bundle_path: Path, unpacked: Path) -> None:
    for name in CARRIED:
        assert (unpacked / name).read_bytes() == (bundle_path / name).read_bytes()
    facts = json.loads((unpacked / "MAR-INF" / "MANIFEST.json").read_text())
    assert facts["model"] == {"modelName": "tiny", "modelVersion": "1", "handler": "handler.py"}


def test_the_command_writes_a_folder_that_listens_on_loopback_only(
    bundle_path: Path, cloud_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "store"
    command = ["torchserve", str(bundle_path), str(cloud_bundle_path), "--out", str(out), "--port", "9100"]
    assert main([*command, "--batch-size", "8", "--batch-delay", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: tiny, tiny-cloud for TorchServe",
        f"Next: {out / START}",
    ]
    given = settings(out)
    addresses = [value for name, value in given.items() if name.endswith("_address")]
    assert len(addresses) == 5
    assert {value.removeprefix("http://").partition(":")[0] for value in addresses} == {"127.0.0.1"}
    assert given["load_models"] == "tiny.mar,tiny-cloud.mar"
    assert given["enable_model_api"] == "false"
    cloud = json.loads(given["models"])["tiny-cloud"]["1"]
    assert (cloud["batchSize"], cloud["maxBatchDelay"], cloud["maxWorkers"]) == (8, 2, 1)
    assert os.access(out / START, os.X_OK)


def test_only_a_folder_of_this_kind_is_replaced(bundle_path: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    store = write_store([bundle], tmp_path / "store")
    with pytest.raises(BundleError, match="--overwrite"):
        write_store([bundle], store)
    assert settings(write_store([bundle], store, Serving(port=9100), overwrite=True))["grpc_management_port"] == "9104"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(BundleError, match="choose another folder"):
        write_store([bundle], tmp_path / "mine", overwrite=True)


def test_a_link_to_a_folder_is_not_replaced(bundle_path: Path, tmp_path: Path) -> None:
    write_store([Bundle.open(bundle_path)], tmp_path / "store")
    (tmp_path / "current").symlink_to("store")
    with pytest.raises(
        BundleError, match=r"current is a symbolic link to .*store; name that folder, or choose another"
    ):
        write_store([Bundle.open(bundle_path)], tmp_path / "current", overwrite=True)


def test_two_bundles_of_one_name_are_refused(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="two bundles are named tiny"):
        write_store([Bundle.open(bundle_path)] * 2, tmp_path / "store")


def test_a_damaged_bundle_leaves_no_folder(bundle_path: Path, tmp_path: Path) -> None:
    for file in bundle_path.iterdir():
        (tmp_path / "damaged").mkdir(exist_ok=True)
        (tmp_path / "damaged" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "damaged" / "model.ts").write_bytes(b"other code")
    with pytest.raises(BundleError, match=r"model\.ts: 10 bytes"):
        write_store([Bundle.open(tmp_path / "damaged")], tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_start_names_what_is_missing(bundle_path: Path, tmp_path: Path) -> None:
    store = write_store([Bundle.open(bundle_path)], tmp_path / "store")
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    bare = {"PATH": str(tmp_path)}
    done = subprocess.run(["/bin/sh", store / START], env=bare, capture_output=True, text=True)
    assert done.returncode == 1
    assert "openjdk-17-jre-headless" in done.stderr


# The handler, alone


def test_a_model_that_was_tampered_with_is_refused(unpacked: Path) -> None:
    load_model(unpacked)
    (unpacked / "model.ts").write_bytes(b"\0" * (unpacked / "model.ts").stat().st_size)
    with pytest.raises(BundleError, match=r"model\.ts: sha256 .* isolatent torchserve BUNDLE"):
        load_model(unpacked)


def test_a_model_that_does_not_reproduce_its_golden_outputs_is_refused(unpacked: Path) -> None:
    golden = load((unpacked / "golden.safetensors").read_bytes())
    golden["mean"] = golden["mean"] + np.float32(0.001)
    (unpacked / "golden.safetensors").write_bytes(save(golden))
    facts = json.loads((unpacked / "manifest.json").read_text())
    facts["files"]["golden.safetensors"]["sha256"] = file_digest(unpacked / "golden.safetensors")
    (unpacked / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=r"mean differs by 0\.001"):
        load_model(unpacked)


def test_torchserves_own_loader_logs_why_it_refuses(unpacked: Path) -> None:
    require()
    (unpacked / "model.ts").write_bytes(b"other code")
    program = (
        "from ts.model_loader import TsModelLoader\n"
        f"TsModelLoader().load('tiny', {str(unpacked)!r}, 'handler.py', batch_size=4)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=unpacked, capture_output=True, text=True)
    assert "RuntimeError: refused: model.ts: 10 bytes, the manifest says" in done.stderr


class Fragile:
    """A model that fails on a black picture, and overflows on a white one."""

    def encode(self, inputs: Array) -> tuple[Array, Array]:
        means = inputs.reshape(len(inputs), -1).mean(axis=1, keepdims=True, dtype=np.float32)
        if (means == 0).any():
            raise RuntimeError("a black picture")
        return np.where(means == 255, np.inf, means), np.zeros_like(means)

    def decode(self, latents: Array) -> Array:
        return latents


def test_a_request_on_which_the_model_fails_costs_the_others_nothing() -> None:
    def request(level: int, count: int = 1) -> Request:
        return Request("posterior", "", np.full((count, 4, 4, 1), level, np.uint8))

    batch: list[Request | Refusal] = [request(3), request(0), Refusal("undecodable", "bad"), request(5, 130)]
    three, black, bad, many = computing.run(Fragile(), batch)
    assert isinstance(black, Refusal)
    assert black.code == "internal"
    assert bad is batch[2]
    assert isinstance(three, dict)
    assert isinstance(many, dict)
    assert (three["mean"].tolist(), many["mean"].shape, many["mean"][0, 0]) == ([[3]], (130, 1), 5)
    white, _ = computing.run(Fragile(), [request(255, 2), request(3)])
    assert isinstance(white, Refusal)
    assert (white.code, white.pointer) == ("non_finite_output", "/input/0")


# A real TorchServe


def test_every_kind_of_body_gives_the_same_posterior(torchserver: TorchServer, bundle_path: Path) -> None:
    text = base64.b64encode(png(1)).decode()
    path = "/predictions/tiny"
    answers = [
        torchserver.post(path, png(1), content_type=PNG),
        torchserver.post(f"{path}/1", png(1), content_type=OCTETS),
        torchserver.post(path, npy(pixels(1)), content_type=OCTETS),
        torchserver.post(path, npy(pixels(1)[None]), content_type=NPY),
        torchserver.post(path, json.dumps({"input": text}).encode(), content_type=JSON),
        torchserver.post(path, json.dumps({"input": [f"data:image/png;base64,{text}"]}).encode(), content_type=JSON),
        httpx2.post(torchserver.url + path, files={"input": ("a.png", png(1), PNG)}, timeout=60),
        httpx2.post(torchserver.url + path, files={"data": ("a.npy", npy(pixels(1)[None]), NPY)}, timeout=60),
        torchserver.post("/invocations?model_name=tiny&output=posterior", png(1), content_type=PNG),
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    (posterior,) = answers[0].json()["data"]
    mean, log_variance = OnnxRuntime(Bundle.open(bundle_path)).encode(pixels(1)[None, :, :, None])
    np.testing.assert_allclose(posterior["mean"], mean[0], atol=1e-5)
    np.testing.assert_allclose(posterior["variance"], np.exp(log_variance[0]), rtol=2e-5)


@pytest.mark.parametrize("how", ["header", "form", "json", "query"])
def test_the_output_is_chosen_by(torchserver: TorchServer, how: str) -> None:
    text = base64.b64encode(png(2)).decode()
    url, body = f"{torchserver.url}/predictions/tiny", {"input": text, "output": "embedding"}
    match how:
        case "header":
            answer = torchserver.post("/predictions/tiny", png(2), content_type=PNG, x_isolatent_output="embedding")
        case "form":
            answer = httpx2.post(url, files={"input": png(2)}, data={"output": "embedding"}, timeout=60)
        case "json":
            answer = torchserver.post("/predictions/tiny", json.dumps(body).encode(), content_type=JSON)
        case "query":
            answer = torchserver.post("/invocations?model_name=tiny&output=embedding", png(2), content_type=PNG)
    assert [sorted(item) for item in answer.json()["data"]] == [["embedding", "index", "object"]]


def test_formats_carry_the_same_numbers(torchserver: TorchServer) -> None:
    def ask(accept: str, output: str = "reconstruction") -> httpx2.Response:
        return torchserver.post("/predictions/tiny", png(3), content_type=PNG, accept=accept, x_isolatent_output=output)

    tensors = load(ask(SAFETENSORS).content)
    assert tensors["reconstruction"].shape == (1, 16, 16, 1)
    assert np.array_equal(np.load(io.BytesIO(ask(NPY).content)), tensors["reconstruction"])
    (listed,) = ask(JSON).json()["data"]
    assert np.array_equal(np.float32(listed["reconstruction"]), tensors["reconstruction"][0])
    picture = np.asarray(Image.open(io.BytesIO(ask(PNG).content)))
    np.testing.assert_allclose(picture / 255, tensors["reconstruction"][0, :, :, 0], atol=0.5001 / 255)
    assert np.load(io.BytesIO(ask(NPY, "embedding").content)).shape == (1, 8)
    assert ask(PNG, "embedding").status_code == 406


def test_one_bad_input_of_a_dynamic_batch_of_64_costs_the_others_nothing(torchserver: TorchServer) -> None:
    files = [b"this is no picture" if place == 20 else png(place) for place in range(64)]
    worker = torchserver.worker("tiny")
    with ThreadPoolExecutor(65) as pool:
        os.kill(worker, signal.SIGSTOP)
        try:  # what arrives while the worker is busy with a request runs in one batch after it
            before = torchserver.arrived("tiny")
            busy = pool.submit(torchserver.post, "/predictions/tiny", png(99), content_type=PNG)
            wait_until(lambda: torchserver.arrived("tiny") == before + 1 and torchserver.queued("tiny") == 0)
            waiting = [pool.submit(torchserver.post, "/predictions/tiny", file, content_type=PNG) for file in files]
            wait_until(lambda: torchserver.queued("tiny") == 64)
        finally:
            os.kill(worker, signal.SIGCONT)
        answers = [each.result() for each in waiting]
    assert busy.result().status_code == 200
    assert {answer.headers["x-batch-size"] for answer in answers} == {"64"}
    assert [answer.status_code for answer in answers] == [422 if place == 20 else 200 for place in range(64)]
    problem = answers[20].json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("undecodable", "/input")
    assert problem["detail"].startswith("not an image of a known format")
    means = np.array([answer.json()["data"][0]["mean"] for answer in answers if answer.status_code == 200])
    alone = torchserver.post("/predictions/tiny", png(63), content_type=PNG).json()["data"][0]["mean"]
    np.testing.assert_allclose(means[-1], alone, atol=1e-5)
    assert len(np.unique(means, axis=0)) == 63


@pytest.mark.parametrize(
    ("content", "media_type", "code", "status"),
    [
        (b"", OCTETS, "missing_input", 400),
        (b"{", JSON, "malformed_json", 400),
        (b"[" * 100_000, JSON, "malformed_json", 400),
        (b'"text"', JSON, "malformed_json", 400),
        (b'{"input": []}', JSON, "missing_input", 400),
        (b'{"input": [[1, 2]]}', JSON, "undecodable", 422),
        (b'{"input": "http://example.org/a.png"}', JSON, "undecodable", 422),
        (b'{"input": "aGVsbG8=", "outputs": "embedding"}', JSON, "unknown_field", 400),
        (b'{"input": "aGVsbG8=", "output": "everything"}', JSON, "invalid_option", 400),
        (json.dumps({"input": ["aGVsbG8="] * 1025}).encode(), JSON, "too_many_items", 413),
        (npy(np.zeros((1025, 16, 16), np.uint8)), NPY, "too_many_items", 413),
        (npy(np.zeros((20, 20), np.uint8)), NPY, "wrong_shape", 422),
        (b"P5 100000 100000 255\n", OCTETS, "too_many_pixels", 413),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(
    torchserver: TorchServer, content: bytes, media_type: str, code: str, status: int
) -> None:
    answer = torchserver.post("/predictions/tiny", content, content_type=media_type)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["status"]) == (status, code, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_two_inputs_in_a_form_are_refused_and_not_dropped(torchserver: TorchServer) -> None:
    files = {"input": png(1), "data": png(2)}
    answer = httpx2.post(f"{torchserver.url}/predictions/tiny", files=files, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (400, "missing_input")


def test_nothing_listens_beyond_loopback(torchserver: TorchServer) -> None:
    import psutil

    family = psutil.Process(torchserver.pid).children(recursive=True)
    heard = [link.laddr for one in family for link in one.net_connections("inet") if link.status == "LISTEN"]
    assert len({address.port for address in heard}) == 5
    assert {address.ip.removeprefix("::ffff:") for address in heard} == {"127.0.0.1"}


def test_no_model_can_be_registered_or_removed(torchserver: TorchServer) -> None:
    where = f"{torchserver.management}/models"
    assert httpx2.post(where, params={"url": "http://127.0.0.1:9/evil.mar"}, timeout=60).status_code == 405
    assert httpx2.delete(f"{where}/tiny", timeout=60).status_code == 405


def test_the_request_in_a_killed_workers_hands_fails_and_the_next_is_answered(torchserver: TorchServer) -> None:
    worker = torchserver.worker("tiny-cloud")
    cloud = npy(np.random.default_rng(0).normal(size=(50, 3)))
    before = torchserver.arrived("tiny-cloud")
    os.kill(worker, signal.SIGSTOP)
    with in_background(lambda: torchserver.post("/predictions/tiny-cloud", cloud, content_type=NPY)) as held:
        wait_until(lambda: torchserver.arrived("tiny-cloud") == before + 1 and torchserver.queued("tiny-cloud") == 0)
        os.kill(worker, signal.SIGKILL)
    assert (held[0].status_code, held[0].json()["message"]) in [(500, "Worker died."), (507, "Worker died.")]
    assert torchserver.post("/predictions/tiny-cloud", cloud, content_type=NPY).status_code == 200
    assert torchserver.worker("tiny-cloud") != worker


def test_without_isolatent_the_log_names_the_install(unpacked: Path) -> None:
    code = "import sys; sys.modules['isolatent_export'] = None; import handler"
    done = subprocess.run([sys.executable, "-c", code], cwd=unpacked, capture_output=True, text=True, env=environment())
    assert 'pip install "isolatent[torchserve]"' in done.stderr
