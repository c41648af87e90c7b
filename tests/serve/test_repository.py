"""A model directory: versions are switched under load, bad ones are refused, what goes is replaced or unloaded."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import uvicorn
from safetensors.numpy import load_file, save_file

from isolatent_export import Bundle, BundleError
from isolatent_export.bundle import file_digest
from isolatent_export.manifest import ImageInput
from isolatent_export.runtime import OnnxRuntime
from isolatent_serve import Settings, create_app, outputs, parser, schemas
from isolatent_serve.consistency import divergence
from isolatent_serve.problems import Problem
from isolatent_serve.repository import Candidate, Repository, natural
from isolatent_serve.service import Service
from serve_support import COMMAND, descendants, serving, wait_until_ready
from support import export_untrained

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def other_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle like `tiny`, of other weights: its answers tell which of the two has given them."""
    spec = ImageInput(height=16, width=16, channels=1)
    return export_untrained(tmp_path_factory.mktemp("other") / "tiny", spec, latent=8, seed=8).path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Path:
    """A model directory in which every test has names of its own."""
    path = tmp_path_factory.mktemp("repository") / "models"
    publish(bundle_path, path / "first" / "1")
    return path


@pytest.fixture(scope="module")
def client(directory: Path) -> Iterator[httpx2.Client]:
    """A client of the service that follows the directory."""
    with following(directory) as client:
        yield client


def publish(bundle: Path, place: Path, **facts: Any) -> Path:
    """Copy a bundle to NAME/VERSION of a model directory as one should: under a hidden name, renamed at the end."""
    hidden = place.with_name(f".new-{place.name}")
    shutil.copytree(bundle, hidden)
    edit_manifest(hidden, {"name": place.parent.name, "version": place.name} | facts)
    return hidden.rename(place)


def edit_manifest(bundle: Path, facts: dict[str, Any]) -> None:
    file = bundle / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def spoil_golden(bundle: Path) -> None:
    """Make the bundle one that is intact, but whose graphs do not compute what it says."""
    file = bundle / "golden.safetensors"
    golden = load_file(file)
    save_file(golden | {"mean": golden["mean"] + np.float32(0.5)}, file)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files[file.name] = {"sha256": file_digest(file), "bytes": file.stat().st_size}
    edit_manifest(bundle, {"files": files})


def tamper(file: Path) -> bytes:
    """Flip one bit of a file; returns what it was."""
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    return content


@contextlib.contextmanager
def following(directory: Path, *bundles: Path, ready: bool = True) -> Iterator[httpx2.Client]:
    """The service over a model directory, in a thread."""
    app = create_app(settings(directory), [Bundle.open(path) for path in bundles])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        if ready:
            wait_until_ready(url)
        with httpx2.Client(base_url=url, timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def settings(directory: Path) -> Settings:
    return Settings(models=directory, poll_seconds=0.05, device="cpu", threads=1)


def until(condition: Callable[[], Any]) -> None:
    """Wait for something that happens within seconds, even on a busy machine."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def version(client: httpx2.Client, model: str) -> str | None:
    """The version that serves now; None when there is none."""
    response = client.get(f"/v1/models/{model}")
    return schemas.ModelFacts.model_validate_json(response.content).version if response.is_success else None


def refused(client: httpx2.Client, model: str) -> list[tuple[str | None, str]]:
    facts = schemas.ModelFacts.model_validate_json(client.get(f"/v1/models/{model}").content)
    return [(refusal.version, refusal.reason) for refusal in facts.refused]


def embedding(client: httpx2.Client, file: bytes, model: str) -> tuple[str, list[float]]:
    """The version that has answered, and its answer."""
    response = client.post(f"/v1/embeddings?model={model}", files={"input": file})
    assert response.status_code == 200, response.text
    return response.json()["version"], response.json()["data"][0]["embedding"]


def expected(bundle: Path, picture: Array) -> Array:
    mean, _ = OnnxRuntime(Bundle.open(bundle), threads=1).encode(picture[None, :, :, None])
    return mean[0]


def test_no_request_is_dropped_while_a_version_takes_over(
    client: httpx2.Client, directory: Path, bundle_path: Path, other_path: Path, png: bytes, grey: Array
) -> None:
    means = {"1": expected(bundle_path, grey), "2": expected(other_path, grey)}
    assert np.abs(means["1"] - means["2"]).max() > 0.01
    publish(bundle_path, directory / "busy" / "1")
    until(lambda: version(client, "busy") == "1")
    answers: list[list[tuple[str, list[float]]]] = [[] for _ in range(4)]

    def ask(mine: list[tuple[str, list[float]]]) -> None:
        with httpx2.Client(base_url=client.base_url, timeout=30) as own:
            while not mine or sum(number == "2" for number, _ in mine) < 10:
                mine.append(embedding(own, png, "busy"))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, mine) for mine in answers]
        until(lambda: all(answers) or any(one.done() for one in asking))
        publish(other_path, directory / "busy" / "2")
        for one in asking:
            one.result()  # every answer was a success
    for mine in answers:
        numbers = [number for number, _ in mine]
        assert numbers == sorted(numbers)
        assert set(numbers) == {"1", "2"}
        for number, mean in mine:
            np.testing.assert_allclose(mean, means[number], atol=1e-5)


def test_a_request_that_began_before_the_switch_ends_on_the_old_version(
    tmp_path: Path, bundle_path: Path, other_path: Path, grey: Array
) -> None:
    publish(bundle_path, tmp_path / "tiny" / "1")
    app = create_app(settings(tmp_path), [])
    service: Service = app.state.service
    item = grey[None, :, :, None]

    async def check() -> None:
        async with app.router.lifespan_context(app):
            while not service.ready:
                await asyncio.sleep(0.02)
            runtimes = count_runtimes()
            with service.working():
                old = service.models.find("tiny")
                publish(other_path, tmp_path / "tiny" / "2")
                shutil.rmtree(tmp_path / "tiny" / "1")
                while service.models.find("tiny") is old:
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.1)
                answer = await old.engine.run(outputs.embedding, item)
                np.testing.assert_allclose(answer["embedding"][0], expected(bundle_path, grey), atol=1e-5)
            await asyncio.sleep(0.5)
            with pytest.raises(Problem, match="worker_lost"):  # closed, as nothing can use it any more
                await old.engine.run(outputs.embedding, item)
            assert count_runtimes() == runtimes  # and its memory is free
            new = await service.models.find("tiny").engine.run(outputs.embedding, item)
            np.testing.assert_allclose(new["embedding"][0], expected(other_path, grey), atol=1e-5)

    asyncio.run(asyncio.wait_for(check(), 60))


def count_runtimes() -> int:
    return sum(type(each) is OnnxRuntime for each in gc.get_objects())


def test_sighup_looks_at_once(tmp_path: Path, bundle_path: Path, other_path: Path) -> None:
    publish(bundle_path, tmp_path / "tiny" / "1")
    with serving("--models", tmp_path, "--poll-seconds", "0") as (process, line):
        url = line.split()[-1]
        wait_until_ready(url)
        with httpx2.Client(base_url=url, timeout=30) as client:
            publish(other_path, tmp_path / "tiny" / "2")
            time.sleep(0.3)
            assert version(client, "tiny") == "1"
            process.send_signal(signal.SIGHUP)
            until(lambda: version(client, "tiny") == "2")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_tampered_version_is_refused_until_it_is_mended(
    client: httpx2.Client, directory: Path, bundle_path: Path, other_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(bundle_path, directory / "bent" / "1")
    hidden = publish(other_path, directory / "bent" / "2").rename(directory / "bent" / ".2")
    good = tamper(hidden / "encoder.onnx")
    until(lambda: version(client, "bent") == "1")
    hidden.rename(directory / "bent" / "2")
    until(lambda: refused(client, "bent"))
    time.sleep(0.3)  # polls that find the same files
    ((number, reason),) = refused(client, "bent")
    assert (number, reason[:28]) == ("2", "bent/2/encoder.onnx: sha256 ")
    assert [record.message for record in caplog.records if "refused" in record.message] == [
        f"model bent: refused {reason}; version 1 goes on"
    ]
    assert version(client, "bent") == "1"
    assert 'isolatent_model_refused_versions{model="bent"} 1.0' in client.get("/metrics").text
    (directory / "bent" / "2" / "encoder.onnx").write_bytes(good)
    until(lambda: version(client, "bent") == "2")
    until(lambda: refused(client, "bent") == [])
    assert 'isolatent_model_refused_versions{model="bent"} 0.0' in client.get("/metrics").text


def test_the_newest_good_version_serves_and_the_others_tell_what_is_wrong(
    client: httpx2.Client, directory: Path, bundle_path: Path, tmp_path: Path
) -> None:
    versions = [publish(bundle_path, tmp_path / "spoilt" / str(number)) for number in range(8, 13)]
    spoil_golden(versions[1])
    edit_manifest(versions[2], {"schema_version": 2})
    edit_manifest(versions[3], {"version": "13"})
    (versions[4] / "manifest.json").write_text("{")
    (tmp_path / "spoilt").rename(directory / "spoilt")
    until(lambda: version(client, "spoilt") == "8")
    until(lambda: len(refused(client, "spoilt")) == 4)
    reasons = dict(refused(client, "spoilt"))
    assert list(reasons) == ["12", "11", "10", "9"]
    assert "not valid JSON" in reasons["12"]
    assert "move it to spoilt/13" in reasons["11"]
    assert "schema version 2" in reasons["10"]
    assert "mean differs by 0.5" in reasons["9"]


@pytest.mark.parametrize("last", ["manifest.json", "encoder.onnx"])
def test_a_version_that_is_still_being_copied_comes_good(
    client: httpx2.Client, directory: Path, bundle_path: Path, tmp_path: Path, last: str
) -> None:
    name = f"slow-{last}"
    publish(bundle_path, directory / name / "1")
    until(lambda: version(client, name) == "1")
    whole = publish(bundle_path, tmp_path / name / "2")
    shutil.copytree(whole, directory / name / "2", ignore=shutil.ignore_patterns(last))
    until(lambda: [number for number, _ in refused(client, name)] == ["2"])
    shutil.copy(whole / last, directory / name / "2")
    until(lambda: version(client, name) == "2")


def test_clouds_can_come_to_a_service_of_images(
    client: httpx2.Client, directory: Path, cloud_bundle_path: Path
) -> None:
    cloud = "".join(f"{x} {y} {x * y}\n" for x in range(8) for y in range(8)).encode()
    before = parsers()
    publish(cloud_bundle_path, directory / "shapes" / "1")
    until(lambda: version(client, "shapes") == "1")
    assert "shapes" in [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert len(embedding(client, cloud, "shapes")[1]) == 8
    assert parsers()["image", "point_cloud"] > before["image", "point_cloud"]
    until(lambda: parsers()[("image",)] < before[("image",)])  # those without the readers have ended


def parsers() -> Counter[tuple[str, ...]]:
    """What the parser processes below this one were started for, and how many there are."""
    commands = [Path(f"/proc/{pid}/cmdline") for pid in descendants(os.getpid())]
    arguments = [file.read_text().rstrip("\0").split("\0") for file in commands if file.exists()]
    return Counter(tuple(each[4:]) for each in arguments if each[2:3] == [parser.__file__])


def test_a_version_that_goes_gives_way_to_the_next_older_one(
    client: httpx2.Client, directory: Path, bundle_path: Path, other_path: Path, png: bytes
) -> None:
    publish(bundle_path, directory / "old" / "1")
    publish(other_path, directory / "old" / "2")
    until(lambda: version(client, "old") == "2")
    (directory / "old" / "2").rename(directory / "old" / ".2")
    until(lambda: version(client, "old") == "1")
    shutil.rmtree(directory / "old" / "1")
    until(lambda: version(client, "old") is None)
    response = client.post("/v1/embeddings?model=old", files={"input": png})
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_a_directory_that_is_away_unloads_nothing(
    client: httpx2.Client, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory.rename(directory.with_name("away"))
    until(lambda: "cannot be read" in caplog.text)
    time.sleep(0.2)
    directory.with_name("away").rename(directory)
    assert version(client, "first") == "1"
    assert caplog.text.count("cannot be read") == 1


def test_a_bundle_that_is_replaced_in_its_place_is_taken(
    client: httpx2.Client, directory: Path, bundle_path: Path, other_path: Path, png: bytes, grey: Array
) -> None:
    place = directory / "flat"  # without a version folder: where `isolatent export --overwrite` writes
    publish(bundle_path, place, name="flat", version="1")
    until(lambda: version(client, "flat"))
    assert scale(client, png) == pytest.approx(reference(bundle_path), rel=1e-3)
    publish(other_path, directory / "new", name="flat", version="1")
    place.rename(directory / ".old")
    (directory / "new").rename(place)
    until(lambda: np.allclose(embedding(client, png, "flat")[1], expected(other_path, grey), atol=1e-5))
    assert scale(client, png) == pytest.approx(reference(other_path), rel=1e-3)


def scale(client: httpx2.Client, png: bytes) -> float:
    """The model's own constant, as its answers about consistency use it."""
    (answer,) = client.post("/v1/consistency?model=flat", files={"input": png}).json()["data"]
    return float(answer["kl"] / answer["normalized"])


def reference(bundle: Path) -> float:
    golden = Bundle.open(bundle).golden()
    half = len(golden.mean) // 2
    strangers = np.roll(golden.mean, half, axis=0), np.roll(golden.log_variance, half, axis=0)
    return float(divergence(strangers, (golden.mean, golden.log_variance)).mean())


def test_touched_files_change_nothing(
    client: httpx2.Client, directory: Path, bundle_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    publish(bundle_path, directory / "touched" / "1")
    until(lambda: version(client, "touched"))
    for file in (directory / "touched" / "1").iterdir():
        file.touch()
    time.sleep(0.5)
    assert (version(client, "touched"), refused(client, "touched")) == ("1", [])
    assert caplog.text.count("model touched: version 1 is ready") == 1


def test_an_empty_directory_is_waited_for(tmp_path: Path, bundle_path: Path, png: bytes) -> None:
    with following(tmp_path, ready=False) as client:
        until(lambda: "put a bundle into" in client.get("/readyz").json()["detail"])
        assert client.post("/v1/embeddings", files={"input": png}).status_code == 400
        publish(bundle_path, tmp_path / "tiny" / "1")
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/v1/embeddings", files={"input": png}).status_code == 200
        (tmp_path / "tiny" / "1").rename(tmp_path / "tiny" / ".1")
        until(lambda: client.get("/readyz").status_code == 503)


def test_a_name_of_the_command_line_is_not_taken_over(tmp_path: Path, bundle_path: Path, other_path: Path) -> None:
    publish(other_path, tmp_path / "tiny" / "2")
    with following(tmp_path, bundle_path) as client:
        ((number, reason),) = refused(client, "tiny")
        assert (number, version(client, "tiny")) == ("2", "1")
        assert "given on the command line" in reason


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "nothing to serve"),
        (["--models", "empty", "--poll-seconds", "0"], "no model to serve; put a bundle into empty"),
    ],
)
def test_a_command_that_can_never_serve_anything_ends(tmp_path: Path, arguments: list[str], reason: str) -> None:
    (tmp_path / "empty").mkdir()
    done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"isolatent: error: {reason}")


def test_what_is_no_model_directory_is_refused(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory"):
        Repository(bundle_path / "nowhere")
    with pytest.raises(BundleError, match="run: isolatent serve"):
        Repository(bundle_path)


def test_versions_are_in_natural_order() -> None:
    order = ["1.0", "1.0-rc1", "1.9", "1.10", "2", "10", "2026-9-30", "2026-11-02", "v2", "v10"]
    assert sorted(sorted(order), key=natural) == order


def test_names_and_versions_must_agree_with_the_folders(tmp_path: Path, bundle_path: Path) -> None:
    place = publish(bundle_path, tmp_path / "tiny" / "1")
    assert Candidate("tiny", "1", place, ()).open().manifest.version == "1"
    for name, number in (("other", "1"), ("tiny", "2")):
        with pytest.raises(BundleError, match="move it to tiny/1"):
            Candidate(name, number, place, ()).open()


def test_hidden_and_empty_folders_are_no_models(tmp_path: Path) -> None:
    for folder in (".git/1", "lost+found", "tiny/1", "tiny/.2"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "README").touch()
    found = Repository(tmp_path).scan()
    assert [(name, each.version) for name, candidates in found.items() for each in candidates] == [("tiny", "1")]
