"""Inputs that clients name: below the allowed folders, and nowhere else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from isolatent_serve.jobs.sources import Skipped, SourceError, SourceLimits, resolve_below
from sources_support import contents, error, ids, listed, png, read, refusal


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret.png").write_bytes(png(0))
    return path


def test_paths_and_patterns_below_a_root_are_found_from_the_first_that_has_them(folder: Path, outside: Path) -> None:
    roots = [outside, folder]
    assert resolve_below("a/2.png", roots) == str(folder / "a/2.png")
    assert resolve_below(f"{folder}/a", roots) == str(folder / "a")
    assert ids(resolve_below("a/*.png", roots), limits=SourceLimits(roots=(str(folder),))) == ["2.png"]
    assert resolve_below("*.png", roots) == f"{outside}/*.png"


def test_roots_with_brackets_in_their_names_are_no_patterns(tmp_path: Path) -> None:
    root = tmp_path / "[x]"
    root.mkdir()
    (root / "0.png").write_bytes(png(0))
    assert ids(resolve_below("*.png", [root]), limits=SourceLimits(roots=(str(root),))) == ["0.png"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "../outside/secret.png",
        "a/../../outside/*.png",
        "/etc/passwd",
        "/etc/*",
        "nowhere.png",
        "nowhere/*.png",
        "link.png",
        "linked/secret.png",
        "linked/*.png",
        "a\0b",
        "s3://bucket/x.png",
        "file:///etc/passwd",
        "x" * 5000,
    ],
)
def test_what_leads_out_or_is_not_there_is_refused_alike(folder: Path, outside: Path, text: str) -> None:
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    with pytest.raises(SourceError) as caught:
        resolve_below(text, [folder])
    assert str(outside) not in caught.value.detail


def test_links_met_on_the_way_do_not_lead_out(folder: Path, outside: Path) -> None:
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    (folder / "inside.png").symlink_to(folder / "0.png")
    skipped = Skipped()
    found = ids(folder, limits=SourceLimits(roots=(str(folder),)), skipped=skipped)
    assert found == ["0.png", "1.png", "a/2.png", "a/b/3.PNG", "inside.png", "z.png"]
    assert skipped.first["a link out of the allowed folders"] == "link.png"


def test_a_link_made_after_the_listing_does_not_lead_out(folder: Path, outside: Path) -> None:
    limits = SourceLimits(roots=(str(folder),))
    items = listed(folder / "0.png", limits=limits)
    (folder / "0.png").unlink()
    (folder / "0.png").symlink_to(outside / "secret.png")
    led_out = error(contents(items, limits=limits)["0.png"]).detail
    (folder / "0.png").unlink()
    assert led_out == error(contents(items, limits=limits)["0.png"]).detail
    assert "no plain file below an allowed folder" in led_out
    assert str(folder) not in led_out


def test_what_vanished_is_told_without_its_place(folder: Path) -> None:
    items = listed(folder / "0.png")
    (folder / "0.png").unlink()
    assert "(No such file or directory)" in error(contents(items)["0.png"]).detail


def test_a_folder_swapped_for_a_link_after_the_listing_does_not_lead_out(folder: Path, outside: Path) -> None:
    limits = SourceLimits(roots=(str(folder),))
    items = listed(folder / "a", limits=limits)
    (folder / "a").rename(folder / "moved")
    (outside / "2.png").write_bytes(png(0))
    (folder / "a").symlink_to(outside)
    assert {error(found).code for found in contents(items, limits=limits).values()} == {"unreadable"}


def test_addresses_are_not_fetched_where_roots_are_given(folder: Path) -> None:
    limits = SourceLimits(roots=(str(folder),))
    assert "not fetched" in refusal("https://example.org/0.png", limits=limits)
    assert "not fetched" in refusal("memory://0.png", limits=limits)
    assert "below an allowed folder" in refusal("file:///etc/passwd", limits=limits)


def test_an_uploaded_archive_can_be_the_only_thing_that_is_allowed(
    folder: Path, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    for command in ("zip -qr ../up.zip .", "tar -czf ../up.tgz ."):
        subprocess.run(command, shell=True, cwd=folder, check=True)
        path = tmp_path / command.split()[2].removeprefix("../")
        assert read(path, limits=SourceLimits(roots=(str(path),)), unpack=tmp_path / "unpacked") == pictures
        assert "below an allowed folder" in refusal(folder, limits=SourceLimits(roots=(str(path),)))
