"""Folders are put in their place whole, and what was there stays until then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from isolatent_export.bundle import BundleError, is_bundle
from isolatent_export.placing import replacing


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """What passes for a bundle, alone in its folder."""
    (tmp_path / "place" / "old").mkdir(parents=True)
    (tmp_path / "place" / "old" / "manifest.json").write_text("old")
    return tmp_path / "place" / "old"


def replace(out: Path, *, overwrite: bool = True) -> None:
    with replacing(out, is_bundle, overwrite=overwrite) as work:
        (work / "manifest.json").write_text("new")


def everything(folder: Path) -> list[str]:
    """Names below a folder."""
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def test_what_was_there_is_replaced_and_nothing_else_is_left(old: Path) -> None:
    replace(old)
    assert (old / "manifest.json").read_text() == "new"
    assert everything(old.parent) == ["old", "old/manifest.json"]
    assert old.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("out", [".", "..", "../old"])
def test_the_current_folder_is_not_replaced(old: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    monkeypatch.chdir(old)
    with pytest.raises(BundleError, match="is the current folder, or contains it; run this elsewhere"):
        replace(Path(out))
    assert (old / "manifest.json").read_text() == "old"
    assert everything(old.parent) == ["old", "old/manifest.json"]


def test_a_link_is_refused_before_any_work(old: Path) -> None:
    (old.parent / "current").symlink_to("old")
    with (
        pytest.raises(BundleError, match=f"current is a symbolic link to {old}; name that folder"),
        replacing(old.parent / "current", is_bundle, overwrite=True),
    ):
        pytest.fail("the work was begun")


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_moved(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if (self / "manifest.json").read_text() == "new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(BundleError, match=r"old cannot be written \(Permission denied\); make room there, or choose"):
        replace(old)
    assert (old / "manifest.json").read_text() == "old"
    assert everything(old.parent) == ["old", "old/manifest.json"]


def test_whoever_is_killed_in_between_leaves_both_folders_beside_the_place(old: Path) -> None:
    program = (
        "import os, sys\nfrom isolatent_export.bundle import is_bundle\n"
        "from isolatent_export.placing import replacing\nrenames = []\n"
        "def hook(event, args):\n"
        "    if event == 'os.rename' and (renames.append(event) or len(renames) == 2):\n"
        "        os.kill(os.getpid(), 9)\n"
        "sys.addaudithook(hook)\n"
        f"with replacing({str(old)!r}, is_bundle, overwrite=True) as work:\n"
        "    (work / 'manifest.json').write_text('new')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=os.environ, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    (kept,), (new,) = old.parent.glob(".old.old-*"), old.parent.glob(".old-*")
    assert (kept / "manifest.json").read_text() == "old"
    assert (new / "manifest.json").read_text() == "new"


def test_a_place_below_a_file_is_refused(old: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot be a folder below the file .*manifest\.json; choose another --out"):
        replace(old / "manifest.json" / "new")
