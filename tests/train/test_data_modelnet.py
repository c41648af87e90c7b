"""Point clouds in HDF5: official parts, names of classes, and files that are refused with a reason."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from data_support import Array, clouds_of, items, load, normalized
from isolatent_export.inputs import decode_array
from isolatent_train.data import DataError, hdf5


def write(path: Path, count: int, *, seed: int = 0, **changes: Any) -> Path:
    """Clouds of 20 points with labels 0, 1, 2, 0, ..."""
    values = {"data": clouds_of(count, 20, seed), "label": (np.arange(count) % 3).astype(np.uint8)[:, None]}
    with h5py.File(path, "w") as file:
        for name, array in (values | changes).items():
            file[name] = array
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """own_train.h5 of 60 clouds, own_test.h5 of 12 and the names of their classes."""
    write(tmp_path / "own_test.h5", 12, seed=1)
    (tmp_path / "shape_names.txt").write_text("bed\nlamp\nchair\n")
    return write(tmp_path / "own_train.h5", 60)


def test_the_test_part_is_found_beside_the_training_part(pair: Path) -> None:
    splits = load(f"modelnet:{pair}", points=20)
    assert splits.counts() == {"train": 54, "validation": 6, "test": 12}
    assert splits.spec.shape == (20, 3)
    assert splits.train.inputs.dtype == torch.float32
    assert splits.validation.labels is not None
    assert splits.validation.labels.bincount().tolist() == [2, 2, 2]
    torch.testing.assert_close(splits.test.inputs, normalized(clouds_of(12, 20, 1)), atol=1e-6, rtol=0)
    assert len(set(items(splits))) == 72


def test_either_file_or_their_folder_names_the_set(pair: Path) -> None:
    places = (pair, pair.with_name("own_test.h5"), pair.parent)
    assert len({load(f"modelnet:{place}", points=20).fingerprint() for place in places}) == 1
    assert load(f"modelnet:{pair}", split_seed=1).fingerprint() != load(f"modelnet:{pair}").fingerprint()


def test_classes_are_named_by_line_and_counted_in_order(pair: Path) -> None:
    splits = load(f"modelnet:{pair}", points=20)
    assert splits.classes == ("bed", "chair", "lamp")
    assert splits.test.labels is not None
    assert splits.test.labels[:4].tolist() == [0, 2, 1, 0]
    (pair.parent / "shape_names.txt").unlink()
    assert load(f"modelnet:{pair}").classes == ("0", "1", "2")


def test_several_files_of_a_part_are_read_in_order(tmp_path: Path) -> None:
    for part, number in (("train", 0), ("train", 1), ("test", 0)):
        write(tmp_path / f"ply_data_{part}{number}.h5", 30, seed=number)
    splits = load(f"modelnet:{tmp_path}", points=20)
    assert splits.counts() == {"train": 54, "validation": 6, "test": 30}


def test_a_file_alone_is_split_by_class(tmp_path: Path) -> None:
    splits = load(f"modelnet:{write(tmp_path / 'all.h5', 90)}", points=20)
    assert splits.counts() == {"train": 63, "validation": 9, "test": 18}
    assert splits.test.labels is not None
    assert splits.test.labels.bincount().tolist() == [6, 6, 6]


def test_clouds_are_sampled_and_normalised_as_the_service_does(pair: Path) -> None:
    splits = load(f"modelnet:{pair}", points=8)
    expected = torch.stack([torch.from_numpy(decode_array(cloud, splits.spec)) for cloud in clouds_of(12, 20, 1)])
    assert torch.equal(splits.test.inputs, expected)


def test_columns_after_the_third_are_left_out(tmp_path: Path) -> None:
    points = clouds_of(30, 20)
    plain = load(f"modelnet:{write(tmp_path / 'plain.h5', 30)}", points=20)
    normals = np.concatenate([points, points], axis=2)
    assert (
        load(f"modelnet:{write(tmp_path / 'n.h5', 30, data=normals)}", points=20).fingerprint() == plain.fingerprint()
    )


def changed(index: int, value: float) -> Array:
    points = clouds_of(30, 20)
    points[index] = value
    return points


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": np.zeros((30, 20), "f4")}, r"data of shape \(30, 20\)"),
        ({"data": np.zeros((30, 20, 2), "f4")}, r"shape \(30, 20, 2\); store \(N, M, 3\)"),
        ({"data": np.zeros((30, 1, 3), "f4")}, "2 or more points"),
        ({"data": np.zeros((30, 20, 3), "i4")}, "points of dtype int32; store float32"),
        ({"data": changed(7, np.nan)}, "cloud 7 has coordinates that are not finite; remove them"),
        ({"data": changed(8, 1.5)}, "cloud 8 has all its points in one place"),
        ({"data": np.array([b"text"] * 30)}, r"'data' has dtype \|S4; store numbers"),
        ({"label": np.zeros(29, int)}, r"labels int64 \(29,\); store one whole number for each cloud"),
        ({"label": np.zeros(30)}, r"labels float64 \(30,\)"),
        ({"label": np.array(["x"] * 30, object)}, "'label' has dtype object; store numbers"),
        ({"label": h5py.SoftLink("/data")}, "'label' is a link"),
        ({"label": h5py.ExternalLink("other.h5", "/label")}, "'label' is a link; store the array itself"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    write(tmp_path / "other.h5", 30)
    with pytest.raises(DataError, match=rf"own\.h5.*{reason}"):
        load(f"modelnet:{write(tmp_path / 'own.h5', 30, **changes)}")


def test_values_in_other_files_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "secret.h5", 30)
    (tmp_path / "raw").write_bytes(bytes(30 * 20 * 3 * 4))
    layout = h5py.VirtualLayout((30, 20, 3), "f4")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "data", (30, 20, 3))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("data", (30, 20, 3), "f4", external=[("raw", 0, h5py.h5f.UNLIMITED)])
    for name in ("virtual.h5", "external.h5"):
        with pytest.raises(DataError, match="takes its values from other files"):
            load(f"modelnet:{tmp_path / name}")


def test_groups_and_missing_arrays_are_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file.create_group("data")
    with pytest.raises(DataError, match="'data' is no data set"):
        load(f"modelnet:{tmp_path / 'own.h5'}")
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["points"] = np.zeros(3)
    with pytest.raises(DataError, match="no data set 'data'; it holds points"):
        load(f"modelnet:{tmp_path / 'own.h5'}")


def test_announced_sizes_are_limited(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "LARGEST", 1000)
    with pytest.raises(DataError, match="'data' holds 0 GiB, the limit is"):
        load(f"modelnet:{pair}")


def test_broken_files_are_said(pair: Path) -> None:
    whole = pair.read_bytes()
    for content in (b"", b"no HDF5", whole[:100], whole[: len(whole) // 2]):
        pair.write_bytes(content)
        with pytest.raises(DataError, match=r"own_train\.h5: not a usable HDF5 file"):
            load(f"modelnet:{pair}")


def test_places_that_name_nothing_are_said(tmp_path: Path) -> None:
    for place, reason in (("", "which file"), (tmp_path / "no.h5", "no such file"), (tmp_path, "no training part")):
        with pytest.raises(DataError, match=reason):
            load(f"modelnet:{place}")


def test_a_label_without_a_name_is_said(pair: Path) -> None:
    (pair.parent / "shape_names.txt").write_text("bed\nlamp")
    with pytest.raises(DataError, match=r"label 2 has no line in shape_names\.txt"):
        load(f"modelnet:{pair}")


@pytest.mark.data
def test_modelnet10(data_dir: Path) -> None:
    spec, start = f"modelnet:{data_dir / 'modelnet10' / 'modelnet10_1024_train.h5'}", time.monotonic()
    splits = load(spec)
    assert time.monotonic() - start < 20
    assert splits.counts() == {"train": 3592, "validation": 399, "test": 908}
    assert splits.classes is not None
    assert (splits.classes[0], splits.classes[-1], len(splits.classes)) == ("bathtub", "toilet", 10)
    for part in (splits.train, splits.validation, splits.test):
        radii = part.inputs.norm(dim=2).amax(1)
        torch.testing.assert_close(radii, torch.ones_like(radii), atol=1e-6, rtol=0)
        assert part.inputs.mean(1).abs().max() < 1e-6
    assert load(spec).fingerprint() == splits.fingerprint()
