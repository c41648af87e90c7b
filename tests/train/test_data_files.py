"""Data sets in files of arrays: what loads, what is refused with a reason, and that nothing is unpickled."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_support import Array, Trap, clouds_of, items, load, normalized, unique_images
from isolatent_train.data import DataError, files, idx

# idx


def idx_bytes(array: Array, *, dtype: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, dtype, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    for part, count in (("train", 50), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 5
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(unique_images(count, seed=count)))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return tmp_path


def test_idx_keeps_the_test_part_and_draws_validation(idx_folder: Path) -> None:
    splits = load(f"idx:{idx_folder}")
    assert splits.counts() == {"train": 45, "validation": 5, "test": 20}
    assert np.array_equal(splits.test.inputs[..., 0], unique_images(20, seed=20))
    assert splits.test.labels is not None
    assert splits.test.labels.tolist() == [0, 1, 2, 3, 4] * 4
    assert splits.classes == ("0", "1", "2", "3", "4")
    assert len(set(items(splits))) == 70


def test_of_60_000_images_10_000_are_for_validation(idx_folder: Path) -> None:
    (idx_folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((60_000, 4, 4), np.uint8)))
    labels = np.arange(60_000, dtype=np.uint32).astype(np.uint8) % 5
    (idx_folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    assert load(f"idx:{idx_folder}").counts() == {"train": 50_000, "validation": 10_000, "test": 20}


GOOD = idx_bytes(unique_images(50))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "starts with , an idx file of 3 axes with 00000803"),
        (b"\x89PNG rubbish", "starts with 89504e47"),
        (idx_bytes(np.zeros(50, np.uint8)), "starts with 00000801"),
        (idx_bytes(unique_images(50), dtype=13), "starts with 00000d03"),
        (GOOD[:10], "cut within the header"),
        (GOOD[:-1], "announces 800 bytes, the file holds 799 bytes"),
        (GOOD + b"!", "announces 800 bytes, the file holds more"),
        (struct.pack(">HBB3I", 0, 8, 3, 50, 40_000, 40_000), "announces 50 x 40000 x 40000 bytes, which cannot be"),
        (struct.pack(">HBB3I", 0, 8, 3, 50, 0, 4), "which cannot be"),
        (struct.pack(">HBB3I", 0, 8, 3, 49, 4, 4) + GOOD[16:-16], "labels of shape .50,. for 49 images"),
    ],
)
def test_idx_files_are_compared_with_their_header(idx_folder: Path, content: bytes, reason: str) -> None:
    (idx_folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        load(f"idx:{idx_folder}")


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(GOOD)[:-20], gzip.compress(GOOD)[:-8] + bytes(8)])
def test_broken_gzip_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read .*download it again"):
        idx.read_idx(tmp_path / "images.gz", axes=3)


def test_a_gzip_bomb_is_read_no_further_than_its_header_says(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.gz", "wb") as file:
        file.write(struct.pack(">HBB3I", 0, 8, 3, 2, 4, 4))
        for _ in range(64):
            file.write(bytes(2**20))
    with pytest.raises(DataError, match="announces 32 bytes, the file holds more"):
        idx.read_idx(tmp_path / "bomb.gz", axes=3)


def test_a_missing_idx_file_is_named(idx_folder: Path) -> None:
    (idx_folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"no t10k-labels-idx1-ubyte\[\.gz\]; it must hold"):
        load(f"idx:{idx_folder}")


def test_idx_parts_of_different_sets_are_told_apart(idx_folder: Path) -> None:
    (idx_folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(unique_images(20, (5, 4))))
    with pytest.raises(DataError, match="differ in size"):
        load(f"idx:{idx_folder}")


# Places


@pytest.mark.parametrize("source", ["idx", "cifar10", "images"])
def test_a_folder_that_is_none_is_said(tmp_path: Path, source: str) -> None:
    (tmp_path / "file").touch()
    for place, reason in (("", "which folder"), (tmp_path / "no", "no such folder"), (tmp_path / "file", "is a file")):
        with pytest.raises(DataError, match=reason):
            load(f"{source}:{place}")


@pytest.mark.parametrize("source", ["npz", "omniglot"])
def test_a_file_that_is_none_is_said(tmp_path: Path, source: str) -> None:
    for place, reason in (("", "which file"), (tmp_path / "no.npz", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(DataError, match=reason):
            load(f"{source}:{place}")


@pytest.mark.parametrize("source", ["idx", "npz", "modelnet", "hf"])
@pytest.mark.parametrize(("place", "reason"), [("~nosuchuser/x", "no such user"), ("a" * 300, "File name too long")])
def test_places_that_cannot_be_looked_up_are_said(source: str, place: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"data '{source}:{place}': {reason}; check"):
        load(f"{source}:{place}")


def test_a_place_below_a_folder_that_one_may_not_enter_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> bool:  # root may enter every folder
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    for source in ("images", "npz", "modelnet"):
        with pytest.raises(DataError, match=f"data '{source}:closed/x': Permission denied; check the path and its"):
            load(f"{source}:closed/x")


def test_a_folder_that_one_may_not_enter_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(DataError, match="one may not enter; check its permissions"):
        load(f"idx:{tmp_path}")


# npz


def npz(path: Path, **arrays: Any) -> str:
    np.savez_compressed(path, **arrays)
    return f"npz:{path}"


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("x", "y")])
@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (4, 6, 3)])
def test_npz_of_images_and_labels(tmp_path: Path, images: str, labels: str, shape: tuple[int, ...]) -> None:
    arrays = {images: unique_images(100, shape), labels: np.arange(100) % 4 + 10}
    splits = load(npz(tmp_path / "own.npz", **arrays))
    assert splits.counts() == {"train": 70, "validation": 10, "test": 20}
    assert splits.spec.shape == (*shape, 1)[:3]
    assert splits.classes == ("10", "11", "12", "13")
    assert sorted(items(splits)) == sorted(image.tobytes() for image in arrays[images])


def test_npz_keeps_labels_with_their_images(tmp_path: Path) -> None:
    pixels = unique_images(60)
    splits = load(npz(tmp_path / "own.npz", images=pixels, labels=np.array(["low", "high"])[pixels[:, 0, 0] // 128]))
    assert splits.classes == ("high", "low")
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels is not None
        assert torch.equal(part.labels == 0, part.inputs[:, 0, 0, 0] >= 128)


def test_npz_without_labels(tmp_path: Path) -> None:
    splits = load(npz(tmp_path / "own.npz", images=unique_images(20)))
    assert splits.classes is None
    assert splits.test.labels is None


@pytest.mark.parametrize("name", ["points", "data", "x"])
def test_npz_of_point_clouds(tmp_path: Path, name: str) -> None:
    arrays = {name: clouds_of(100).astype(np.float64), "label": np.array(["low", "high"])[np.arange(100) % 2]}
    splits = load(npz(tmp_path / "own.npz", **arrays), points=20)
    assert splits.counts() == {"train": 70, "validation": 10, "test": 20}
    assert (splits.spec.shape, splits.classes) == ((20, 3), ("high", "low"))
    expected = normalized(clouds_of(100))
    assert sorted(items(splits)) == sorted(cloud.numpy().tobytes() for cloud in expected)


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble])
def test_npz_of_points_in_every_float(tmp_path: Path, dtype: Any) -> None:
    expected = load(npz(tmp_path / "native.npz", points=clouds_of(20)), points=20)
    stored = load(npz(tmp_path / "own.npz", points=clouds_of(20).astype(dtype)), points=20)
    assert torch.allclose(stored.train.inputs, expected.train.inputs, atol=1e-5)


def test_npz_as_keras_stores_it(tmp_path: Path) -> None:
    train, test = unique_images(50, (4, 4, 3)), unique_images(20, (4, 4, 3), seed=1)
    arrays = {"x_train": train, "y_train": np.arange(50)[:, None] % 5, "x_test": test, "y_test": np.arange(20) % 5}
    splits = load(npz(tmp_path / "keras.npz", **arrays))
    assert splits.counts() == {"train": 45, "validation": 5, "test": 20}
    assert {image.numpy().tobytes() for image in splits.test.inputs} == {image.tobytes() for image in test}
    del arrays["y_test"]
    with pytest.raises(DataError, match="labels for some parts only"):
        load(npz(tmp_path / "keras.npz", **arrays))
    arrays |= {"y_test": np.arange(20) % 5, "x_test": unique_images(20, (5, 4, 3))}
    with pytest.raises(DataError, match="differ in shape"):
        load(npz(tmp_path / "keras.npz", **arrays))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"pixels": unique_images(20)}, "no array `images` or `points`.*it holds pixels"),
        ({"data": unique_images(20)}, "points of dtype uint8; store float32"),
        ({"points": clouds_of(20)[..., :2]}, r"point clouds of shape \(20, 20, 2\)"),
        ({"x": clouds_of(5)}, "5 clouds are too few"),
        ({"images": unique_images(20) / np.float32(255)}, "images of dtype float32; store uint8"),
        ({"images": unique_images(20, (4, 4, 4))}, r"shape \(20, 4, 4, 4\)"),
        ({"images": unique_images(20), "labels": np.zeros(19, int)}, "labels of shape .19,. for 20 images"),
        ({"images": unique_images(20), "labels": np.zeros(20)}, "labels of dtype float64"),
        ({"images": unique_images(3)}, "3 images are too few"),
        ({"images": unique_images(20), "labels": np.array([None] * 20)}, "not a usable npz archive .Object arrays"),
    ],
)
def test_npz_arrays_that_do_not_fit_are_named(tmp_path: Path, arrays: dict[str, Array], reason: str) -> None:
    np.savez(tmp_path / "own.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"own\.npz'?: .*{reason}"):
        load(f"npz:{tmp_path / 'own.npz'}")


def test_npz_never_unpickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("own.npz", images=np.array([Trap()] * 20, object))
    with zipfile.ZipFile("raw.npz", "w") as archive:
        archive.writestr("images.npy", pickle.dumps(Trap()))
    for name in ("own.npz", "raw.npz"):
        with pytest.raises(DataError, match="not a usable npz archive"):
            load(f"npz:{name}")
    assert not Path("sprung").exists()


def npy_claiming(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(100)


@pytest.mark.parametrize("shape", [(20, 4, 4), (10**12, 4, 4), (10**30, 4, 4)])
def test_npz_members_that_claim_more_than_they_hold_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("images.npy", npy_claiming(shape))
    with pytest.raises(DataError, match="not a usable npz archive"):
        load(f"npz:{tmp_path / 'lie.npz'}")


def test_npz_bombs_are_refused_by_their_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 2**20)
    with pytest.raises(DataError, match="GiB uncompressed, the limit is"):
        load(npz(tmp_path / "bomb.npz", images=np.zeros((2**12, 16, 17), np.uint8)))


def test_broken_npz_files_are_said(tmp_path: Path) -> None:
    spec = npz(tmp_path / "own.npz", images=unique_images(100))
    whole = (tmp_path / "own.npz").read_bytes()
    flipped = whole[:400] + bytes([whole[400] ^ 255]) + whole[401:]
    for content in (b"", b"no zip", whole[:-30], flipped):
        (tmp_path / "own.npz").write_bytes(content)
        with pytest.raises(DataError, match="not a usable npz archive"):
            load(spec)


# OMNIGLOT


def omniglot(path: Path, count: int, **changes: Any) -> str:
    alphabet = np.arange(count) % 3 * 2 + 1  # 1, 3, 5
    arrays: dict[str, Any] = {"images": unique_images(count), "alphabet": alphabet, "split": np.arange(count) % 4 // 3}
    np.savez(path, **arrays | changes)
    return f"omniglot:{path}"


def test_omniglot_uses_the_background_and_labels_alphabets_from_0(tmp_path: Path) -> None:
    splits = load(omniglot(tmp_path / "o.npz", 120))
    assert splits.counts() == {"train": 63, "validation": 9, "test": 18}
    assert splits.classes == ("1", "3", "5")
    names = np.array(["A", "Magi", "C", "Bengali", "E", "Futhorc"])
    assert load(omniglot(tmp_path / "o.npz", 120, alphabet_names=names)).classes == ("Bengali", "Futhorc", "Magi")


def test_omniglot_ink_of_1_becomes_255(tmp_path: Path) -> None:
    splits = load(omniglot(tmp_path / "o.npz", 120, images=unique_images(120) // 128))
    assert splits.train.inputs.unique().tolist() == [0, 255]


def test_omniglot_is_16_280_1_000_2_000(tmp_path: Path) -> None:
    split = np.zeros(19_280, np.uint8)
    splits = load(omniglot(tmp_path / "o.npz", 19_280, split=split))
    assert splits.counts() == {"train": 16_280, "validation": 1_000, "test": 2_000}


def test_omniglot_files_that_do_not_fit_are_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", images=unique_images(20))
    with pytest.raises(DataError, match="no array 'alphabet'; it holds images"):
        load(f"omniglot:{tmp_path / 'o.npz'}")
    with pytest.raises(DataError, match="differ in length"):
        load(omniglot(tmp_path / "o.npz", 120, split=np.zeros(7)))
    with pytest.raises(DataError, match="an alphabet has no name"):
        load(omniglot(tmp_path / "o.npz", 120, alphabet_names=np.array(["A"])))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": np.uint8(1), "alphabet": np.int64(1), "split": np.int64(0)}, "differ in length"),
        ({"alphabet": np.int64(1)}, "differ in length"),
        ({"alphabet": np.zeros(120), "alphabet_names": np.array(["A"])}, "an alphabet has no name"),
        ({"alphabet": np.full(120, -1), "alphabet_names": np.array(["A"])}, "an alphabet has no name"),
        ({"alphabet_names": np.array("A")}, "an alphabet has no name"),
        ({"images": np.full((120, 4, 4), "ink")}, "images of dtype <U3; store uint8"),
    ],
)
def test_omniglot_arrays_of_strange_shapes_and_types_are_said(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        load(omniglot(tmp_path / "o.npz", 120, **changes))


# The real sets


@pytest.mark.data
def test_mnist(data_dir: Path) -> None:
    splits = load(f"idx:{data_dir / 'mnist'}")
    assert splits.counts() == {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert splits.test.labels is not None
    assert splits.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels is not None
        shares = part.labels.bincount(minlength=10) / len(part)
        assert 0.08 < shares.min() < shares.max() < 0.125
    assert len(set(items(splits))) == 70_000  # no image is in two parts
    assert load(f"idx:{data_dir / 'mnist'}").fingerprint() == splits.fingerprint()


@pytest.mark.data
def test_omniglot(data_dir: Path) -> None:
    spec = f"omniglot:{data_dir / 'omniglot' / 'omniglot_28x28_box.npz'}"
    splits = load(spec)
    assert splits.counts() == {"train": 16_280, "validation": 1_000, "test": 2_000}
    assert splits.classes is not None
    assert len(splits.classes) == 30
    assert splits.train.labels is not None
    assert splits.train.labels.bincount(minlength=30).min() > 200
    assert 0.05 < splits.train.inputs.float().mean() / 255 < 0.12  # thin bright strokes on black
    assert len(set(items(splits))) == 19_279  # two of the originals are alike
    assert load(spec).fingerprint() == splits.fingerprint() != load(spec, split_seed=1).fingerprint()
