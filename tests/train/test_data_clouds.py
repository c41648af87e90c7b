"""Folders of point cloud and mesh files: classes, formats, what is passed over, files that cannot be read."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_support import Array, clouds_of, items
from isolatent_export.inputs import decode_item
from isolatent_train.config import DataSection
from isolatent_train.data import DataError, Splits, load_data
from isolatent_train.data.decoding import LIMITS

pytest.importorskip("trimesh", reason="the extra `clouds` is not installed")


def load(folder: Path, **section: Any) -> Splits:
    return load_data(DataSection(spec=f"clouds:{folder}", points=16, **section))


def save(path: Path, cloud: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, cloud)
    elif path.suffix == ".ply":
        header = f"ply\nformat ascii 1.0\nelement vertex {len(cloud)}\n"
        header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
        path.write_text(header + "\n".join(" ".join(map(str, point)) for point in cloud) + "\n")
    else:
        path.write_text("\n".join(" ".join(map(str, point)) for point in cloud) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 lamps, 10 of them deeper down, and 10 sofas."""
    for index, (cloud, other, sofa) in enumerate(clouds_of(30).reshape(10, 3, 20, 3)):
        save(tmp_path / "set" / "lamp" / f"{index}.xyz", cloud)
        save(tmp_path / "set" / "lamp" / "more" / f"{index}.npy", other)
        save(tmp_path / "set" / "sofa" / f"{index}.ply", sofa)
    return tmp_path / "set"


def test_sub_folders_are_classes_and_formats_mix(folder: Path) -> None:
    splits = load(folder)
    assert splits.counts() == {"train": 21, "validation": 3, "test": 6}
    assert splits.classes == ("lamp", "sofa")
    assert (splits.spec.modality, splits.spec.shape) == ("point_cloud", (16, 3))
    assert splits.train.inputs.dtype == torch.float32
    assert splits.rejected == ()


def test_files_are_decoded_as_the_service_does(folder: Path) -> None:
    splits = load(folder, sampling="farthest", normalization="none")
    files = [file for file in folder.rglob("*") if file.is_file()]
    expected = {decode_item(file.read_bytes(), splits.spec, LIMITS).tobytes() for file in files}
    assert set(items(splits)) == expected
    assert len(expected) == 30


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for index, cloud in enumerate(clouds_of(12)):
        save(tmp_path / f"{index}.txt", cloud)
    splits = load(tmp_path)
    assert splits.train.labels is None
    assert sum(splits.counts().values()) == 12


def test_materials_textures_and_hidden_files_are_passed_over(folder: Path) -> None:
    before = load(folder).fingerprint()
    for name in ("lamp/0.mtl", "lamp/wood.PNG", ".hidden.ply", "README.md", "sofa/labels.json"):
        (folder / name).write_bytes(b"no cloud")
    splits = load(folder)
    assert splits.rejected == ()
    assert splits.fingerprint() == before


def test_unreadable_files_are_left_out_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "lamp" / "0.xyz").write_bytes(b"\x00rubbish")
    save(folder / "sofa" / "0.ply", np.full((20, 3), np.nan))
    save(folder / "sofa" / "1.ply", np.ones((20, 3)))
    (folder / "sofa" / "empty.off").touch()
    splits = load(folder)
    assert [item.path for item in splits.rejected] == ["lamp/0.xyz", "sofa/0.ply", "sofa/1.ply", "sofa/empty.off"]
    assert sum(splits.counts().values()) == 27
    assert f"data 'clouds:{folder}': 4 of 31 left out:\n  lamp/0.xyz: " in capsys.readouterr().err
    with pytest.raises(DataError, match=r"lamp/0\.xyz: .*data\.strict"):
        load(folder, strict=True)


def test_a_folder_without_clouds_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no cloud files; put them there"):
        load(tmp_path)
    for index in range(3):
        (tmp_path / f"{index}.ply").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"none of 3 files can be read as clouds \(0\.ply: "):
        load(tmp_path)
    with pytest.raises(DataError, match="which folder"):
        load_data(DataSection(spec="clouds"))


@pytest.mark.data
def test_every_real_file_that_must_load_does(data_dir: Path, tmp_path: Path) -> None:
    with (data_dir / "formats" / "LISTING.tsv").open(newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if "/images/" not in row[0]]
    wanted = [row[0] for row in rows[1:] if row[1] == "must load" and not row[0].endswith(".bin")]  # bare numbers
    for name in wanted:
        target = tmp_path / Path(name).relative_to("formats")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(data_dir / name, target)
    splits = load(tmp_path)
    assert splits.rejected == ()
    assert sum(splits.counts().values()) == len(wanted) > 60
    assert splits.fingerprint() == load(tmp_path).fingerprint()


@pytest.mark.data
def test_hostile_files_are_left_out_and_named(data_dir: Path, tmp_path: Path) -> None:
    for index, cloud in enumerate(clouds_of(20)):
        save(tmp_path / "good" / f"{index}.xyz", cloud)
    shutil.copytree(data_dir / "hostile", tmp_path / "hostile")
    splits = load(tmp_path)
    assert all(item.path.startswith("hostile/") for item in splits.rejected)
    assert len(splits.rejected) > 50
