"""CIFAR-10 in its binary form and as pictures; its pickles are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_support import Array, Trap, items, load, unique_images
from isolatent_train.data import DataError
from isolatent_train.data import cifar10 as cifar10_source

# CIFAR-10


@pytest.fixture
def cifar_binary(tmp_path: Path) -> Path:
    for number, name in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]):
        write_records(tmp_path / f"{name}.bin", unique_images(20, (32, 32, 3), seed=number))
    write_records(tmp_path / "test_batch.bin", unique_images(20, (32, 32, 3), seed=9))
    return tmp_path


def write_records(path: Path, pixels: Array) -> None:
    labels = (np.arange(len(pixels), dtype=np.uint8) % 10)[:, None]
    path.write_bytes(np.hstack([labels, pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)]).tobytes())


def test_cifar10_binary(cifar_binary: Path) -> None:
    splits = load(f"cifar10:{cifar_binary}")
    assert splits.counts() == {"train": 90, "validation": 10, "test": 20}
    assert np.array_equal(splits.test.inputs, unique_images(20, (32, 32, 3), seed=9))
    assert splits.test.labels is not None
    assert splits.test.labels.tolist() == [*range(10), *range(10)]
    assert splits.classes is not None
    assert splits.classes[9] == "truck"
    assert len(set(items(splits))) == 120


def test_cifar10_binary_files_are_checked(cifar_binary: Path) -> None:
    batch = cifar_binary / "data_batch_3.bin"
    whole = batch.read_bytes()
    for content, reason in ((whole[:-1], "no multiple of 3073"), (b"", "no multiple"), (b"\x0a" + whole[1:], "0..9")):
        batch.write_bytes(content)
        with pytest.raises(DataError, match=rf"data_batch_3\.bin: .*{reason}"):
            load(f"cifar10:{cifar_binary}")
    batch.unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: no such file; unpack all"):
        load(f"cifar10:{cifar_binary}")


def test_a_binary_file_that_may_not_be_read_is_said(cifar_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, _dtype: type) -> Array:  # root may read every file
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "fromfile", refuse)
    with pytest.raises(DataError, match=r"data_batch_1\.bin: cannot be read .Permission denied.; check"):
        load(f"cifar10:{cifar_binary}")


def test_cifar10_pickles_are_refused_unread_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(1, 6):
        Path(f"data_batch_{number}").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=r"pickles.*cifar-10-binary\.tar\.gz instead, or use hf:uoft-cs/cifar10"):
        load("cifar10:.")
    assert not Path("sprung").exists()


def test_a_folder_without_cifar10_says_what_to_unpack(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unpack cifar-10-binary"):
        load(f"cifar10:{tmp_path}")


@pytest.fixture
def cifar_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three training batches, a validation batch and a test batch of 10 images each."""
    monkeypatch.setattr(cifar10_source, "ROWS", 10)
    for number in (0, 1, 2, 40, 50):
        rows = unique_images(10, (1024, 3), seed=number)
        Image.fromarray(rows).save(tmp_path / f"cifar10_batch_{number}.png")
    labels = {"train_labels": np.arange(500, dtype=np.uint8) % 10, "test_labels": np.arange(100, dtype=np.uint8) % 10}
    np.savez(tmp_path / "labels.npz", **labels)  # type: ignore[arg-type]
    return tmp_path


def test_cifar10_pictures(cifar_pictures: Path) -> None:
    splits = load(f"cifar10:{cifar_pictures}")
    assert splits.counts() == {"train": 30, "validation": 10, "test": 10}
    assert np.array_equal(splits.test.inputs.reshape(10, 1024, 3), unique_images(10, (1024, 3), seed=50))
    assert splits.test.labels is not None
    assert splits.test.labels.tolist() == list(range(10))


def test_cifar10_pictures_are_checked(cifar_pictures: Path) -> None:
    batch = cifar_pictures / "cifar10_batch_1.png"
    Image.new("RGB", (32, 32)).save(batch)
    with pytest.raises(DataError, match=r"RGB \(32, 32\), expected RGB 1024 x 10"):
        load(f"cifar10:{cifar_pictures}")
    batch.write_bytes((cifar_pictures / "cifar10_batch_0.png").read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"batch_1\.png: broken picture"):
        load(f"cifar10:{cifar_pictures}")
    batch.unlink()
    with pytest.raises(DataError, match=r"no cifar10_batch_1\.png though later ones are there"):
        load(f"cifar10:{cifar_pictures}")
    (cifar_pictures / "labels.npz").unlink()
    with pytest.raises(DataError, match="no npz file with train_labels"):
        load(f"cifar10:{cifar_pictures}")


@pytest.mark.data
def test_cifar10(data_dir: Path) -> None:
    splits = load(f"cifar10:{data_dir / 'cifar10'}")
    assert splits.counts() == {"train": 20_000, "validation": 5_000, "test": 1_000}
    assert splits.spec.shape == (32, 32, 3)
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels is not None
        shares = part.labels.bincount(minlength=10) / len(part)
        assert 0.08 < shares.min() < shares.max() < 0.12
    assert splits.test.labels is not None
    assert splits.test.labels[:4].tolist() == [3, 8, 8, 0]  # a cat, two ships, an airplane
    with np.load(data_dir / "cifar10" / "cifar10_labels_all_and_test1017.npz") as archive:
        assert np.array_equal(splits.test.inputs, archive["test_images_first_1017"][:1000])
    assert len(set(items(splits))) == 26_000
