"""Folders of image files: classes, formats, files that cannot be read, and what is never followed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from isolatent_export.inputs import Limits, decode_item
from isolatent_train.config import DataSection
from isolatent_train.data import DataError, Splits, decoding, load_data


def load(folder: Path, **section: Any) -> Splits:
    return load_data(DataSection(spec=f"images:{folder}", **section))


def save(path: Path, seed: int, mode: str = "RGB", side: int = 8, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 cats, 10 of them deeper down, and 10 dogs."""
    root = tmp_path / "pets"
    for index in range(10):
        save(root / "cat" / f"{index}.png", index)
        save(root / "cat" / "more" / "still" / f"{index}.png", 100 + index)
        save(root / "dog" / f"{index}.png", 200 + index)
    return root


def test_sub_folders_are_classes_and_searched_to_any_depth(folder: Path) -> None:
    splits = load(folder)
    assert splits.counts() == {"train": 21, "validation": 3, "test": 6}
    assert splits.classes == ("cat", "dog")
    assert splits.spec.shape == (64, 64, 3)
    counts = [part.labels.bincount().tolist() for part in (splits.train, splits.validation, splits.test)]  # type: ignore[union-attr]
    assert counts == [[14, 7], [2, 1], [4, 2]]
    assert splits.rejected == ()


def test_files_are_decoded_as_the_service_does(folder: Path) -> None:
    splits = load(folder, size=(5, 7), channels=1, resize="stretch")
    assert splits.spec.shape == (5, 7, 1)
    files = sorted(folder.rglob("*.png"))
    expected = {decode_item(file.read_bytes(), splits.spec, Limits()).tobytes() for file in files}
    parts = (splits.train, splits.validation, splits.test)
    assert {image.numpy().tobytes() for part in parts for image in part.inputs} == expected
    assert len(expected) == 30


def test_labels_stay_with_their_images(folder: Path) -> None:
    for index in range(10):
        Image.new("L", (8, 8), 255).save(folder / "dog" / f"{index}.png")
    splits = load(folder, size=8)
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels is not None
        assert torch.equal(part.labels == 1, (part.inputs == 255).all(dim=(1, 2, 3)))


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for index in range(12):
        save(tmp_path / f"{index}.png", index)
    splits = load(tmp_path)
    assert splits.train.labels is None
    assert splits.classes is None


def test_one_class_is_enough(folder: Path) -> None:
    shutil.rmtree(folder / "dog")
    splits = load(folder)
    assert splits.classes == ("cat",)
    assert splits.train.labels is not None
    assert splits.train.labels.unique().tolist() == [0]


def test_a_copy_made_in_another_order_splits_alike(folder: Path, tmp_path: Path) -> None:
    for file in sorted(folder.rglob("*.png"), reverse=True):
        target = tmp_path / "copy" / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    assert load(tmp_path / "copy").fingerprint() == load(folder).fingerprint()
    assert load(folder, split_seed=1).fingerprint() != load(folder).fingerprint()


def test_formats_and_modes_mix(tmp_path: Path) -> None:
    kinds = [("RGB", "jpg"), ("RGBA", "png"), ("L", "bmp"), ("P", "gif"), ("1", "tif"), ("LA", "png"), ("RGB", "webp")]
    for index, (mode, suffix) in enumerate([*kinds, *kinds]):
        save(tmp_path / f"{index}.{suffix}", index, mode, side=20 + index)
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    save(tmp_path / "turned.jpg", 99, exif=exif)
    splits = load(tmp_path)
    assert sum(splits.counts().values()) == 16
    assert splits.rejected == ()


def test_a_file_without_a_known_suffix_is_tried(tmp_path: Path) -> None:
    for index in range(12):
        save(tmp_path / f"{index}", index, format="PNG")
    assert sum(load(tmp_path).counts().values()) == 12


def test_hidden_files_and_sidecars_are_passed_over(folder: Path) -> None:
    before = load(folder).fingerprint()
    for name in (".hidden.png", "cat/.thumbs/1.png", "notes.txt", "cat/LABELS.JSON", "Thumbs.db"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no image")
    splits = load(folder)
    assert splits.rejected == ()
    assert splits.fingerprint() == before


def test_unreadable_files_are_left_out_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cat" / "0.png").write_bytes((folder / "cat" / "0.png").read_bytes()[:90])
    (folder / "dog" / "x.jpg").write_bytes(b"")
    save(folder / "stray.png", 7)
    splits = load(folder)
    assert [item.path for item in splits.rejected] == ["cat/0.png", "dog/x.jpg", "stray.png"]
    reasons = [item.reason for item in splits.rejected]
    assert reasons[0].startswith("broken image file")
    assert reasons[1].startswith("0 bytes")
    assert reasons[2] == "lies beside the class folders; move it into one"
    assert sum(splits.counts().values()) == 29
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"data 'images:{folder}': 3 of 32 left out:\n  cat/0.png: broken image file")


def test_ten_rejected_files_are_named_and_the_others_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(14):
        (folder / "cat" / f"bad{index:02}.png").write_bytes(b"rubbish")
    assert len(load(folder).rejected) == 14
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 4 more"


def test_strict_stops_at_the_first_in_sorted_order(folder: Path) -> None:
    for name in ("cat/5.png", "cat/more/still/1.png", "dog/0.png"):
        (folder / name).write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"cat/5\.png: not an image of a known format.*data\.strict"):
        load(folder, strict=True)
    (folder / "stray.png").touch()
    with pytest.raises(DataError, match=r"stray\.png: lies beside"):
        load(folder, strict=True)


def test_a_class_of_which_nothing_can_be_read_is_none(folder: Path) -> None:
    (folder / "ape").mkdir()
    (folder / "ape" / "0.png").write_bytes(b"rubbish")
    splits = load(folder)
    assert splits.classes == ("cat", "dog")
    assert splits.train.labels is not None
    assert splits.train.labels.unique().tolist() == [0, 1]


def test_every_class_is_in_train(folder: Path) -> None:
    for index in range(5):
        save(folder / f"rare{index}" / "only.png", 300 + index)
    splits = load(folder, test=0.5, validation=0.2)
    assert splits.train.labels is not None
    assert splits.train.labels.unique().tolist() == list(range(7))


def test_too_little_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image files; put them there, one sub-folder per class"):
        load(tmp_path)
    for index in range(3):
        save(tmp_path / f"{index}.png", index)
    with pytest.raises(DataError, match="3 images are too few"):
        load(tmp_path)
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"none of 3 files can be read as images \(0\.png: not an image"):
        load(tmp_path)


def test_parts_in_sub_folders_are_not_taken_for_classes(folder: Path) -> None:
    (folder / "cat").rename(folder / "train")
    (folder / "dog").rename(folder / "test")
    with pytest.raises(DataError, match=r"test, train look like parts, not classes; name one of them"):
        load(folder)


@pytest.mark.parametrize("names", [("Train", "Test", "Meta"), ("train", "test", "extra"), ("test", "val"), ("train",)])
def test_parts_of_any_case_and_beside_other_folders_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for seed in range(12):
        save(tmp_path / names[seed % len(names)] / f"{seed}.png", seed)
    with pytest.raises(DataError, match=rf"look like parts, not classes; .*DIR/{names[0]}\), or merge them"):
        load(tmp_path)


def test_one_class_may_be_called_like_a_part(folder: Path) -> None:
    (folder / "cat").rename(folder / "train")
    assert load(folder).classes == ("dog", "train")


def test_a_flat_folder_with_sub_folders_beside_it_is_not_guessed_at(tmp_path: Path) -> None:
    for seed in range(30):
        save(tmp_path / f"{seed}.png", seed)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.doc").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"30 files lie in it and 1 in sub-folders \(notes\).* move the files into a class"
    ):
        load(tmp_path)
    for seed in range(12):
        save(tmp_path / "thumbs" / f"{seed}.png", seed)
    with pytest.raises(DataError, match=r"\(notes, thumbs\).*; move .* or move or remove the sub-folders"):
        load(tmp_path)
    (tmp_path / "notes").rename(tmp_path / ".notes")
    (tmp_path / "thumbs").rename(tmp_path / ".thumbs")
    assert sum(load(tmp_path).counts().values()) == 30


def test_links_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "secret" / "1.png", 999)
    (folder / "cat" / "out.png").symlink_to(tmp_path / "secret" / "1.png")
    (folder / "linked").symlink_to(tmp_path / "secret")
    (folder / "cat" / "loop").symlink_to(folder)
    (folder / "cat" / "self.png").symlink_to("self.png")
    (folder / "cat" / "twin.png").symlink_to("1.png")
    splits = load(folder)
    refused = ["cat/loop", "cat/out.png", "cat/self.png", "cat/twin.png", "linked"]
    assert [item.path for item in splits.rejected] == refused
    assert "link out of the folder" in splits.rejected[1].reason
    assert sum(splits.counts().values()) == 30


def test_a_link_is_read_only_where_what_it_shows_is_not(folder: Path) -> None:
    save(folder / ".store" / "a.png", 999)
    for link in ("cat/first.png", "dog/second.png"):
        (folder / link).symlink_to(folder / ".store" / "a.png")
    (folder / "dog" / "cat.png").symlink_to("../cat/1.png")
    splits = load(folder)
    reasons = {item.path: item.reason for item in splits.rejected}
    assert reasons["dog/cat.png"] == "a link to what is read as cat/1.png; remove it"
    assert reasons["dog/second.png"] == "a link to what is read as cat/first.png; remove it"
    assert sum(splits.counts().values()) == 31


def test_a_folder_of_linked_classes_is_explained(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "cat").symlink_to(folder / "cat")
    with pytest.raises(DataError, match=r"no image files \(cat: a link out of the folder; copy what it shows\)"):
        load(tmp_path / "links")


def test_special_files_are_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "cat" / "pipe.png")
    assert [item.path for item in load(folder).rejected] == ["cat/pipe.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_files_and_folders_without_permission_are_named(folder: Path) -> None:
    (folder / "cat" / "1.png").chmod(0)
    (folder / "dog").chmod(0)
    assert ["Permission denied" in item.reason for item in load(folder).rejected] == [True, True]


def test_a_folder_that_may_be_listed_but_not_entered_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def refusing(path: Any, **options: Any) -> os.stat_result:  # root may enter every folder
        if "still" in os.fspath(path):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refusing)
    splits = load(folder)
    assert sum(splits.counts().values()) == 20
    assert len(splits.rejected) == 10
    assert "cannot be looked at (Permission denied); check the permissions" in splits.rejected[0].reason


def test_huge_files_are_not_read_to_their_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isolatent_train.data.folders.LIMITS", limits := Limits(item_bytes=1000))
    monkeypatch.setattr(decoding, "LIMITS", limits)
    with (folder / "cat" / "huge.png").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    assert "the limit is 1000 per item" in load(folder).rejected[0].reason


def test_names_that_would_break_a_table_are_escaped(folder: Path) -> None:
    (folder / "cat" / "tab\tline\n.png").touch()
    (folder / "cat" / os.fsdecode(b"latin\xe9.png")).touch()
    assert [item.path for item in load(folder).rejected] == ["cat/latin\\udce9.png", "cat/tab\\tline\\n.png"]


def test_more_than_memory_holds_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda _name: 512)
    with pytest.raises(DataError, match=r"30 images of 64 x 64 x 3 need .* set a smaller data\.size"):
        load(folder)


@pytest.mark.data
def test_real_and_hostile_files_side_by_side(data_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for kind in ("formats", "hostile"):
        shutil.copytree(data_dir / kind / "images", tmp_path / kind)
    splits = load(tmp_path)
    said = capfd.readouterr().err  # libtiff's own complaints, too
    assert splits.classes == ("formats", "hostile")
    assert all(item.path.startswith("hostile/") for item in splits.rejected)  # all 28 unusual but good ones load
    assert sum(splits.counts().values()) + len(splits.rejected) == len(list(tmp_path.glob("*/*")))
    assert len(splits.rejected) > 50
    assert splits.rejected[0].path in said
    again = load(tmp_path)
    assert again.rejected == splits.rejected
    assert again.fingerprint() == splits.fingerprint()


@pytest.mark.data
def test_a_folder_of_real_photographs(data_dir: Path, tmp_path: Path) -> None:
    rows = np.asarray(Image.open(data_dir / "cifar10" / "cifar10_batch_50.png")).reshape(1000, 32, 32, 3)
    for index, pixels in enumerate(rows[:200]):
        file = tmp_path / f"{index % 4}" / f"{index}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    splits = load(tmp_path, size=32)
    assert splits.counts() == {"train": 140, "validation": 20, "test": 40}
    parts = (splits.train, splits.validation, splits.test)
    loaded = {image.numpy().tobytes() for part in parts for image in part.inputs}
    assert loaded == {pixels.tobytes() for pixels in rows[:200]}
