"""Folders, patterns and files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isolatent_serve.jobs.plan import Stopped
from isolatent_serve.jobs.sources import Skipped, SourceLimits, ordering
from sources_support import contents, error, ids, listed, png, read, refusal


def test_a_folder_is_listed_to_any_depth_in_the_order_of_names(folder: Path, pictures: dict[str, bytes]) -> None:
    assert read(folder) == pictures
    assert ids(folder) == ["0.png", "1.png", "a/2.png", "a/b/3.PNG", "z.png"]


def test_what_is_passed_over_is_counted_with_the_reason(folder: Path) -> None:
    (folder / "gone.png").symlink_to("/nowhere.png")
    (folder / "linked").symlink_to(folder / "a")
    os.mkfifo(folder / "pipe.png")
    skipped = Skipped()
    assert len(ids(folder, skipped=skipped)) == 5
    assert skipped.counts == {"hidden": 2, "other suffix": 1, "no plain file": 2, "a link to a folder": 1}
    assert skipped.first["other suffix"] == "notes.md"


def test_only_files_named_like_the_modality_count(folder: Path) -> None:
    (folder / "cloud.ply").touch()
    (folder / "array.npy").touch()
    assert ids(folder, modality="point_cloud") == ["array.npy", "cloud.ply"]
    assert "cloud.ply" not in ids(folder, modality="image")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["0.png", "1.png", "z.png"]),
        ("[0-1].png", ["0.png", "1.png"]),
        ("**/*.png", ["0.png", "1.png", "a/2.png", "z.png"]),
        ("a/*", ["2.png", "b/3.PNG"]),
        ("a*", ["a/2.png", "a/b/3.PNG"]),
        ("*/b/?.PNG", ["a/b/3.PNG"]),
        ("*.md", ["notes.md"]),  # a suffix that is written down is meant
    ],
)
def test_a_pattern_matches_names_part_by_part(folder: Path, pattern: str, expected: list[str]) -> None:
    assert ids(folder / pattern) == expected


def test_a_pattern_does_not_look_into_folders_that_cannot_match(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0)
    assert ids(folder / "a/*.png") == ["2.png"]
    assert ids(folder / "*.png") == ["0.png", "1.png", "z.png"]


def test_a_name_with_brackets_is_a_name_where_there_is_such_a_file(folder: Path) -> None:
    (folder / "x[1].png").write_bytes(png(9))
    assert read(folder / "x[1].png") == {"x[1].png": png(9)}


def test_several_inputs_have_ids_below_the_folder_that_they_share(folder: Path) -> None:
    assert ids(folder / "0.png", folder / "z.png") == ["0.png", "z.png"]
    assert ids(folder / "a/b", folder / "1.png") == ["a/b/3.PNG", "1.png"]


def test_a_file_named_by_itself_may_have_any_name(folder: Path) -> None:
    assert read(folder / "notes.md") == {"notes.md": b"#"}


def test_names_that_are_no_unicode_are_read_and_have_ids_that_are(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(png(1))
    assert read(tmp_path) == {"\\xff.png": png(1)}


def test_a_folder_larger_than_memory_is_sorted_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "IN_MEMORY", 7)
    for name in range(40):
        (tmp_path / f"{name * 7919 % 1000}.png").touch()
    assert ids(tmp_path) == sorted(path.name for path in tmp_path.iterdir())


def test_a_file_that_vanished_or_grew_too_large_is_an_error_of_its_own(
    folder: Path, pictures: dict[str, bytes]
) -> None:
    items = listed(folder)
    (folder / "1.png").unlink()
    (folder / "a/2.png").write_bytes(bytes(101))
    found = contents(items, limits=SourceLimits(item_bytes=100))
    assert found["0.png"] == pictures["0.png"]
    assert (error(found["1.png"]).code, error(found["a/2.png"]).code) == ("unreadable", "too_many_bytes")


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(folder: Path) -> None:
    items = listed(folder / "0.png")
    (folder / "0.png").unlink()
    os.mkfifo(folder / "0.png")
    assert "not a plain file" in error(contents(items)["0.png"]).detail


def test_nothing_to_read_is_refused_and_says_what_is_there(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "nowhere")
    assert "no such file or folder" in refusal(tmp_path / "no/where/*.png")
    (tmp_path / "shard.tar").touch()
    assert "1 passed over: an archive or table in a folder (shard.tar)" in refusal(tmp_path)
    assert "only be an entire path component" in refusal(tmp_path / "**.png")


def test_a_folder_without_inputs_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "notes.md").touch()

    def check() -> None:
        raise Stopped

    for place in (tmp_path, tmp_path / "*"):
        with pytest.raises(Stopped):
            listed(place, check=check)
