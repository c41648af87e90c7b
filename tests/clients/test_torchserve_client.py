"""The SDK and the commands against a real TorchServe, compared with the service on the same files."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isolatent import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    Client,
    InternalServerError,
    NotFoundError,
    Posterior,
    RequestTooLargeError,
    ServiceUnavailableError,
    UnprocessableInputError,
    UnsupportedError,
)
from isolatent.cli import main
from torchserve_support import TorchServer, environment, in_background, wait_until

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

DOCS = Path(__file__).parents[2] / "docs" / "torchserve.md"
MESH = "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n"


@pytest.fixture
def at(torchserver: TorchServer) -> Iterator[Client]:
    with Client(torchserver.url, backend="torchserve", timeout=120) as client:
        yield client


@pytest.fixture
def service(mixed_url: str) -> Iterator[Client]:
    with Client(mixed_url) as client:
        yield client


@pytest.fixture
def cloud_files(tmp_path: Path) -> list[Path]:
    """A mesh, a text of points and an array, of different sizes."""
    points = np.random.default_rng(2).normal(size=(90, 3))
    (tmp_path / "mesh.off").write_text(MESH)
    (tmp_path / "cloud.xyz").write_text("\n".join(" ".join(map(str, row)) for row in points[:40]))
    np.save(tmp_path / "cloud.npy", points.astype(np.float32))
    return [tmp_path / name for name in ("mesh.off", "cloud.xyz", "cloud.npy")]


@pytest.fixture
def files(pngs: list[Path], cloud_files: list[Path]) -> dict[str, list[Path]]:
    """By the name of a model, files that it takes."""
    return {"tiny": pngs, "tiny-cloud": cloud_files}


@pytest.mark.parametrize("model", ["tiny", "tiny-cloud"])
def test_both_give_the_same_posteriors(at: Client, service: Client, files: dict[str, list[Path]], model: str) -> None:
    ours, theirs = (client.posteriors(files[model], model) for client in (service, at))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.mean, other.mean, atol=1e-5)
        np.testing.assert_allclose(np.log(one.variance), np.log(other.variance), atol=1e-5)
        assert one.kl == pytest.approx(other.kl, abs=1e-4)
        assert (other.model, other.version) == (one.model, one.version) == (model, "1")


@pytest.mark.parametrize("model", ["tiny", "tiny-cloud"])
def test_both_give_the_same_embeddings_and_reconstructions(
    at: Client, service: Client, files: dict[str, list[Path]], model: str
) -> None:
    ours, theirs = (client.embed(files[model], model, batch_size=2) for client in (service, at))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    kept, rebuilt = (client.reconstruct(files[model][0], model) for client in (service, at))
    np.testing.assert_allclose(kept, rebuilt, atol=1e-5)


@pytest.mark.data
@pytest.mark.parametrize(("model", "images"), [("tiny", True), ("tiny-cloud", False)])
def test_both_say_the_same_of_real_files(at: Client, service: Client, data_dir: Path, model: str, images: bool) -> None:
    paths = [path for path in sorted((data_dir / "formats").glob("*/*")) if (path.parent.name == "images") == images]
    here, there = ([outcome(client, path, model) for path in paths] for client in (service, at))
    taken = [place for place, one in enumerate(here) if isinstance(one, Posterior)]
    assert len(taken) >= 20
    for path, one, other in zip(paths, here, there, strict=True):
        if isinstance(one, Posterior):
            np.testing.assert_allclose(one.mean, other.mean, atol=1e-5, err_msg=str(path))
            np.testing.assert_allclose(np.log(one.variance), np.log(other.variance), atol=1e-5, err_msg=str(path))
        else:
            assert other == one, path


def outcome(client: Client, path: Path, model: str) -> Posterior | str | None:
    """The posterior of a file, or the code with which it is refused."""
    try:
        return client.posterior(path, model)
    except APIStatusError as error:
        return error.code


def test_arrays_go_as_one_array(at: Client, pixels: Pixels, pngs: list[Path]) -> None:
    np.testing.assert_allclose(at.embed(pixels, "tiny"), at.embed(pngs, "tiny"), atol=1e-5)
    assert at.embed(np.random.default_rng(0).normal(size=(3, 20, 3)), "tiny-cloud").shape == (3, 8)
    assert at.embed([], "tiny").shape == (0, 8)


def test_files_of_reconstructions(at: Client, files: dict[str, list[Path]]) -> None:
    png = at.reconstruct_file(files["tiny"][0], "png", "tiny")
    assert Image.open(io.BytesIO(png)).size == (16, 16)
    ply = at.reconstruct_file(files["tiny-cloud"][0], "ply", "tiny-cloud")
    assert b"element vertex 49\n" in ply


def test_a_model_has_the_facts_of_the_service(at: Client, service: Client) -> None:
    here, there = at.model("tiny-cloud"), service.model("tiny-cloud")
    assert here.provider == "TorchScript"
    assert (here.id, here.version, here.modality, here.latent_size, here.input, here.ready) == (
        (there.id, there.version, there.modality, there.latent_size, there.input, there.ready)
    )


def test_it_is_ready(at: Client) -> None:
    assert at.ready() is True


def test_where_there_are_two_models_one_must_be_named(at: Client, pngs: list[Path]) -> None:
    for ask in (lambda: at.posterior(pngs[0]), at.models):
        with pytest.raises(BadRequestError, match="name one") as caught:
            ask()
        assert caught.value.code == "model_required"


def test_an_unknown_model_is_not_found(at: Client, pngs: list[Path]) -> None:
    for ask in (lambda: at.posterior(pngs[0], "huge"), lambda: at.model("huge")):
        with pytest.raises(NotFoundError, match="Model not found: huge; /models at") as caught:
            ask()
        assert caught.value.code == "model_not_found"
        assert caught.value.request_id


def test_an_undecodable_file_is_named_with_its_place(at: Client, pngs: list[Path]) -> None:
    pngs[5].write_bytes(b"this is no picture")
    with pytest.raises(UnprocessableInputError) as caught:
        at.embed(pngs, "tiny", batch_size=4)
    (error,) = caught.value.errors
    assert (error.index, error.name) == (5, f"input 5 ({pngs[5]})")
    with pytest.raises(UnprocessableInputError, match="not an image of a known format"):
        at.posterior(pngs[5], "tiny")


def test_a_body_beyond_the_limit_is_too_large(at: Client) -> None:
    with pytest.raises(RequestTooLargeError, match="max_request_size"):
        at.embed(bytes(65 * 2**20), "tiny")


def test_what_torchserve_cannot_do_is_said_before_anything_is_sent(stand_in: Any, pngs: list[Path]) -> None:
    with Client(stand_in.url, backend="torchserve") as client:
        for ask in (lambda: client.consistency(pngs, "tiny"), lambda: client.decode(np.zeros((1, 8)), "tiny")):
            with pytest.raises(UnsupportedError, match=r"TorchServe cannot do .* isolatent serve BUNDLE"):
                ask()
    assert stand_in.connections == 0


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="backend='triton', expected isolatent or torchserve"):
        Client(backend="triton")  # type: ignore[arg-type]


def test_its_own_port_is_the_default() -> None:
    assert Client(backend="torchserve").base_url == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("status", "kind", "message", "error"),
    [
        (400, "InvalidKeyException", "Token Authorization failed.", AuthenticationError),
        (503, "ServiceUnavailableException", 'Model "tiny" has no worker.', ServiceUnavailableError),
        (507, "InternalServerException", "Worker died.", ServiceUnavailableError),
        (500, "InternalServerException", "Something else.", InternalServerError),
    ],
)
def test_errors_of_torchserve_itself_are_the_same_exceptions(
    stand_in: Any, status: int, kind: str, message: str, error: type[Exception], pngs: list[Path]
) -> None:
    body = json.dumps({"code": status, "type": kind, "message": message}).encode()
    stand_in.reply(status, body, content_type="application/json", x_request_id="abc")
    client = Client(stand_in.url, backend="torchserve", max_retries=0)
    with client, pytest.raises(error, match=message.rstrip(".")) as caught:
        client.posterior(pngs[0])
    assert "abc" in str(caught.value)


def test_one_model_need_not_be_named(stand_in: Any) -> None:
    facts = {"id": "one", "version": "1", "modality": "image", "provider": "TorchScript", "ready": True}
    body = json.dumps(facts | {"input": {}, "latent": {"size": 3}}).encode()
    stand_in.reply(200, body, content_type="application/json")
    with Client(stand_in.url, backend="torchserve") as client:
        (model,) = client.models()
    assert (model.id, model.latent_size) == ("one", 3)
    assert [request[0] for request in stand_in.requests] == ["/invocations"]


def test_a_server_with_a_worker_down_is_not_ready(stand_in: Any) -> None:
    stand_in.reply(200, b'{"status": "Partial Healthy"}', content_type="application/json")
    with Client(stand_in.url, backend="torchserve") as client:
        assert client.ready() is False


def test_the_key_is_sent_as_torchserve_wants_it(stand_in: Any) -> None:
    stand_in.reply(200, b'{"status": "Healthy"}', content_type="application/json")
    with Client(stand_in.url, backend="torchserve", api_key="inference-key") as client:
        assert client.ready() is True
    assert stand_in.requests[0][1]["Authorization"] == "Bearer inference-key"


def test_the_commands_speak_torchserve(
    torchserver: TorchServer, files: dict[str, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--url", torchserver.url, "--backend", "torchserve", "--model"]
    assert main(["posterior", str(files["tiny"][0]), *at, "tiny", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["mean"]) == 8
    assert main(["embed", *map(str, files["tiny-cloud"]), "--out", str(tmp_path / "e.npy"), *at, "tiny-cloud"]) == 0
    assert np.load(tmp_path / "e.npy").shape == (3, 8)
    assert main(["reconstruct", str(files["tiny"][0]), "--out", str(tmp_path / "kept.png"), *at, "tiny"]) == 0
    with Image.open(tmp_path / "kept.png") as kept:
        assert kept.size == (16, 16)
    capsys.readouterr()
    assert main(["models", *at[:-1]]) == 1
    assert "model_required" in capsys.readouterr().err


def test_a_call_survives_the_death_of_the_worker(
    torchserver: TorchServer, at: Client, pngs: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    expected = at.posterior(pngs[0], "tiny")
    worker, before = torchserver.worker("tiny"), torchserver.arrived("tiny")
    os.kill(worker, signal.SIGSTOP)  # so that the call is in its hands when it dies
    with caplog.at_level(logging.INFO, "isolatent"), in_background(lambda: at.posterior(pngs[0], "tiny")) as outcome:
        wait_until(lambda: torchserver.arrived("tiny") > before and torchserver.queued("tiny") == 0)
        os.kill(worker, signal.SIGKILL)
    np.testing.assert_allclose(outcome[0].mean, expected.mean, atol=1e-5)
    assert re.search("503 worker_lost: TorchServe answered 50[07] Worker died; it starts another one", caplog.text)


def test_without_a_server_the_error_is_that_of_the_connection() -> None:
    client = Client("http://127.0.0.1:9", backend="torchserve", max_retries=0)
    with client, pytest.raises(APIConnectionError):
        client.ready()


# The page


@pytest.fixture
def blocks(torchserver: TorchServer, pngs: list[Path], bundle_path: Path, tmp_path: Path) -> dict[str, list[str]]:
    """The page's examples by language, for the model and the server that are here, and the files that they name."""
    (tmp_path / "images").mkdir()
    pngs[0].rename(tmp_path / "digit.png")
    pngs[1].rename(tmp_path / "images" / "1.png")
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "tiny").symlink_to(bundle_path)
    text = DOCS.read_text().replace("http://127.0.0.1:8080", torchserver.url)
    text = re.sub(r"\bdigits\b", "tiny", text)
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return {kind: [body for of, body in found if of == kind] for kind in ("sh", "python")}


def test_the_commands_of_the_page_run(blocks: dict[str, list[str]], tmp_path: Path) -> None:
    make, *others = "".join(blocks["sh"]).splitlines()
    start = others.pop(0)
    for line in [make, f"test -x {start}", *others]:  # start.sh is what runs the server of these tests
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment(), capture_output=True)
        assert done.returncode == 0, f"{line}\n{done.stderr.decode()}"
        assert not line.startswith("curl") or "-o" in line or json.loads(done.stdout)["object"] in ("list", "model")
    with Image.open(tmp_path / "kept.png") as kept:
        assert kept.size == (16, 16)


def test_the_python_of_the_page_runs(
    blocks: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = blocks["python"]
    exec(compile(program, str(DOCS), "exec"), {})
    assert "TorchServe cannot do consistency" in capsys.readouterr().out
