"""push and pull: bundles travel as archives and through a hub, and arrive verified or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disk_support import small_disk
from hub_support import Hub, hub
from isolatent.cli import main
from isolatent_export import Bundle, BundleError
from isolatent_export.sharing.archive import pack, unpack
from isolatent_export.sharing.arrival import arrive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where things arrive."""
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def the_hub() -> Iterator[Hub]:
    """A hub on loopback."""
    with hub() as found:
        yield found


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A tar file with these members."""
    with tarfile.open(path, "w") as target:
        for member, content in members:
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return path


def file(name: str, content: bytes = b"x", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    """A member; `changes` set attributes of it."""
    member = tarfile.TarInfo(name)
    for attribute, value in changes.items():
        setattr(member, attribute, value)
    return member, content


@pytest.mark.parametrize("name", ["tiny.tar", "tiny.tar.gz", "tiny.tgz"])
def test_a_bundle_travels_as_one_file(
    bundle_path: Path, tmp_path: Path, folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(bundle_path), str(tmp_path / name)]) == 0
    assert main(["pull", str(tmp_path / name), "--out", str(folder / "copy")]) == 0
    assert "golden outputs match" in capsys.readouterr().out
    sent, got = ({each.name: each.read_bytes() for each in where.iterdir()} for where in (bundle_path, folder / "copy"))
    assert sent == got
    assert [each.name for each in folder.iterdir()] == ["copy"]


def test_the_same_bundle_packs_to_the_same_bytes(bundle_path: Path, tmp_path: Path) -> None:
    for name in ("a.tar.gz", "b.tar.gz"):
        pack(Bundle.open(bundle_path), tmp_path / name)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_an_archive_made_by_tar_itself_is_taken(bundle_path: Path, tmp_path: Path, folder: Path) -> None:
    subprocess.run(["tar", "-czf", tmp_path / "tiny.tgz", "-C", bundle_path, "."], check=True)
    assert arrive(str(tmp_path / "tiny.tgz"), folder / "copy").manifest.name == "tiny"


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (file("../config.json"), r"'\.\./config\.json' leaves the bundle"),
        (file("tiny/../../config.json"), "leaves the bundle"),
        (file("/etc/config.json"), "leaves the bundle"),
        (file("tiny\\..\\config.json"), "leaves the bundle"),
        (file("a/b/config.json"), "leaves the bundle"),
        (file("config.json", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is no plain file"),
        (file("config.json", type=tarfile.LNKTYPE, linkname="../../x"), "is no plain file"),
        (file("config.json", type=tarfile.FIFOTYPE), "is no plain file"),
        (file("config.json", type=tarfile.CHRTYPE), "is no plain file"),
        (file("payload.pkl"), "is no kind of file that bundles have"),
        (file("__init__.py"), "is no kind of file that bundles have"),
        (file(".json"), "is no kind of file that bundles have"),
    ],
)
def test_a_member_that_is_not_allowed_is_named_and_nothing_is_written(
    tmp_path: Path, folder: Path, member: tuple[tarfile.TarInfo, bytes], reason: str
) -> None:
    made = archive(tmp_path / "evil.tar", member)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BundleError, match=reason):
        arrive(str(made), folder / "out")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([file("config.json"), file("./config.json")], "one file too many"),
        ([file("a/config.json"), file("b/manifest.json")], "one file too many"),
        ([file(f"{index}.json") for index in range(65)], "one file too many"),
    ],
)
def test_doubled_or_countless_members_are_refused(
    tmp_path: Path, folder: Path, members: list[tuple[tarfile.TarInfo, bytes]], reason: str
) -> None:
    with pytest.raises(BundleError, match=reason):
        unpack(archive(tmp_path / "evil.tar", *members), folder)


def test_an_archive_that_swells_is_stopped(tmp_path: Path, folder: Path) -> None:
    archive(tmp_path / "bomb.tar", file("weights.safetensors", b"\0" * 30_000_000))
    subprocess.run(["gzip", tmp_path / "bomb.tar"], check=True)
    assert (tmp_path / "bomb.tar.gz").stat().st_size < 100_000
    with pytest.raises(BundleError, match="more bytes than a bundle may have"):
        unpack(tmp_path / "bomb.tar.gz", folder, max_bytes=1_000_000)
    assert sum(each.stat().st_size for each in folder.iterdir()) <= 1_000_000


def test_a_header_made_to_fill_the_memory_is_refused(tmp_path: Path, folder: Path) -> None:
    made = archive(tmp_path / "evil.tar", file("././@PaxHeader", b"\0" * 2**25, type=tarfile.XHDTYPE))
    with pytest.raises(BundleError, match="a header of absurd size"):
        unpack(made, folder)


@pytest.mark.parametrize("name", ["tiny.tar", "tiny.tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_a_truncated_archive_is_refused(
    bundle_path: Path, tmp_path: Path, folder: Path, name: str, share: float
) -> None:
    pack(Bundle.open(bundle_path), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BundleError, match="not a readable tar archive"):
        arrive(str(tmp_path / name), folder / "out")
    assert list(folder.iterdir()) == []


def test_a_tampered_bundle_does_not_arrive(bundle_path: Path, tmp_path: Path, folder: Path) -> None:
    copy = Path(shutil.copytree(bundle_path, tmp_path / "copy"))
    (copy / "README.md").write_text("Trust me.")
    subprocess.run(["tar", "-cf", tmp_path / "copy.tar", "-C", tmp_path, "copy"], check=True)
    for source in (copy, tmp_path / "copy.tar"):
        with pytest.raises(BundleError, match=r"copy.*README\.md: 9 bytes, the manifest says"):
            arrive(str(source), folder / "out")
    assert list(folder.iterdir()) == []


def test_what_is_at_the_destination_stays_unless_it_is_a_bundle_to_replace(bundle_path: Path, folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(BundleError, match="exists; choose another --out"):
            arrive(str(bundle_path), folder / "mine", overwrite=overwrite)
    arrive(str(bundle_path), folder / "copy")
    with pytest.raises(BundleError, match="replace it with --overwrite"):
        arrive(str(bundle_path), folder / "copy")
    arrive(str(bundle_path), folder / "copy", overwrite=True)


@pytest.mark.parametrize("kind", ["archive", "directory"])
def test_a_full_disk_is_not_the_sources_fault(bundle_path: Path, tmp_path: Path, folder: Path, kind: str) -> None:
    source = bundle_path
    if kind == "archive":
        source = tmp_path / "zeros.tar.gz"
        with tarfile.open(source, "w:gz") as target:
            member, content = file("weights.safetensors", bytes(100_000), size=100_000)
            target.addfile(member, io.BytesIO(content))
    with small_disk(), pytest.raises(BundleError, match=r"out cannot be written \(File too large\); make room there"):
        arrive(str(source), folder / "out")
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_not_the_hubs_fault() -> None:
    from isolatent_export.sharing.hub import _explained

    with (
        pytest.raises(BundleError, match="me/tiny: No space left on device while it was copied; make room"),
        _explained("me/tiny"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_place_below_a_file_is_one_line(bundle_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes").touch()
    assert main(["pull", str(bundle_path), "--out", str(folder / "notes" / "copy")]) == 1
    assert f"cannot be a folder below the file {folder / 'notes'}; choose another --out" in capsys.readouterr().err


def test_the_current_folder_is_not_replaced(bundle_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(bundle_path, folder / "copy"))
    monkeypatch.chdir(copy)
    with pytest.raises(BundleError, match="is the current folder"):
        arrive(str(bundle_path), Path(), overwrite=True)
    assert Bundle.open(copy).manifest.name == "tiny"


@pytest.mark.parametrize(
    ("source", "reason"),
    [("https://example.com/x.tar", "addresses are not fetched"), ("nowhere.tar", "no such file or directory")],
)
def test_other_sources_are_refused(folder: Path, source: str, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        arrive(source, folder / "out")


def isolatent(the_hub: Hub, home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command, with this hub for the hub: huggingface_hub reads its address when it is imported."""
    environment = os.environ | the_hub.environment(home)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "isolatent", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    return run


def test_a_bundle_travels_through_the_hub(
    bundle_path: Path, colour_bundle_path: Path, the_hub: Hub, folder: Path, tmp_path: Path
) -> None:
    run = isolatent(the_hub, tmp_path / "home")
    the_hub.repositories["me/tiny"] = {"leftover.bin": b"of an earlier version"}
    pushed = run("push", bundle_path, "me/tiny")
    assert pushed.returncode == 0, pushed.stderr
    assert f"{the_hub.url}/me/tiny/commit/" in pushed.stdout
    assert the_hub.tokens == {"Bearer hf_test"}
    assert the_hub.repositories["me/tiny"] == {each.name: each.read_bytes() for each in bundle_path.iterdir()}
    the_hub.repositories["me/tiny"] |= {".gitattributes": b"", "unlisted.py": b"raise SystemExit"}
    pulled = run("pull", "me/tiny", "--out", folder / "copy")
    assert pulled.returncode == 0, pulled.stderr
    assert {each.name for each in (folder / "copy").iterdir()} == {each.name for each in bundle_path.iterdir()}
    assert [each.name for each in folder.iterdir()] == ["copy"]

    the_hub.repositories["me/tiny"]["encoder.onnx"] = (colour_bundle_path / "encoder.onnx").read_bytes()
    the_hub.repositories["me/tiny"]["decoder.onnx"] += b"\0"
    tampered = run("pull", "me/tiny", "--out", folder / "other")
    assert tampered.returncode == 1
    assert "coder.onnx" in tampered.stderr
    assert "do not use" in tampered.stderr or "copy or export" in tampered.stderr
    missing = run("pull", "me/nothing", "--out", folder / "other")
    assert missing.returncode == 1
    assert "me/nothing: " in missing.stderr
    assert "check the name" in missing.stderr
    assert [each.name for each in folder.iterdir()] == ["copy"]


def test_the_hub_can_read_the_metrics_in_the_card(bundle_path: Path) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(bundle_path / "README.md").data
    assert data.library_name == "isolatent"
    assert "image" in data.tags
    (result,) = data.eval_results
    assert (data.model_name, result.metric_type, result.metric_value) == ("tiny", "nll", 1.5)


def test_a_card_tells_no_folder_of_the_training_data(bundle_path: Path) -> None:
    from isolatent_export.card import card

    manifest = Bundle.open(bundle_path).manifest
    training = manifest.training.model_copy(update={"data": "idx:/home/someone/secret/mnist"})
    front = card(manifest.model_copy(update={"training": training})).split("---")[1]
    assert json.loads(front.partition("model-index: ")[2])[0]["results"][0]["dataset"]["name"] == "idx:mnist"
