"""What a model directory holds that cannot be served is refused, or waited for, and named."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from isolatent_export import BundleError
from isolatent_serve.repository import Candidate, Repository, natural
from repository_support import (
    edit_manifest,
    following,
    publish,
    refused,
    spoil_golden,
    tamper,
    until,
    version,
)
from serve_support import COMMAND


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


def test_a_directory_that_is_away_unloads_nothing(
    client: httpx2.Client, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory.rename(directory.with_name("away"))
    until(lambda: "cannot be read" in caplog.text)
    time.sleep(0.2)
    directory.with_name("away").rename(directory)
    assert version(client, "first") == "1"
    assert caplog.text.count("cannot be read") == 1


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
