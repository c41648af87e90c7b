"""`cifar10:DIR`: CIFAR-10, 32 x 32 colour, in one of two forms that are safe to read.

Binary, as published (cifar-10-binary.tar.gz): data_batch_{1..5}.bin and test_batch.bin, records of a label and 3072
planar bytes. Validation is the section's fraction of the training images, drawn with the split seed.

Lossless pictures: cifar10_batch_{K}.png of 1,000 rows, each the 1,024 pixels of image 1000 K + row, and an npz with
`train_labels` and `test_labels`. K = 0..39 are for training, 40..49 for validation, from 50 on the test images; as many
of each as are there, without gaps.

The Python form is refused: its pickles can run code when they are read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isolatent_train.config import DataSection
from isolatent_train.data.files import npz_names, read_npz, require_folder
from isolatent_train.data.parts import finish, hold_out, labelled, share, shuffled
from isolatent_train.data.splits import DataError, Labelled, Splits

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32
ROWS = 1000
"""Images per picture."""
PICTURES = {"train": range(40), "validation": range(40, 50), "test": range(50, 60)}

_PICTURE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def load(place: str, section: DataSection) -> Splits:
    """Official test part; validation as said above. Raises DataError naming the file, or what to download."""
    folder = require_folder(place, "cifar10")
    if (folder / "test_batch.bin").is_file() or (folder / "data_batch_1.bin").is_file():
        return _load_binary(folder, section)
    if any(folder.glob("cifar10_batch_*.png")):
        return _load_pictures(folder, section)
    if any(folder.glob("data_batch_*")):
        raise DataError(
            f"{folder}: holds Python pickles, which can run code when read; download cifar-10-binary.tar.gz "
            "instead, or use hf:uoft-cs/cifar10 or images:DIR"
        )
    raise DataError(f"{folder}: no CIFAR-10 here; unpack cifar-10-binary.tar.gz and name the folder of the .bin files")


def _load_binary(folder: Path, section: DataSection) -> Splits:
    batches = [_read_records(folder / f"data_batch_{number}.bin") for number in range(1, 6)]
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    all_train = labelled(pixels, labels, str(folder))
    count = share(all_train, section.validation)
    train, validation = hold_out(all_train, count, section, "validation", stratified=True)
    test = labelled(*_read_records(folder / "test_batch.bin"), str(folder))
    return finish(section, train, validation, test, classes=CLASSES)


def _read_records(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; unpack all of cifar-10-binary.tar.gz")
    if path.stat().st_size % RECORD or not path.stat().st_size:
        raise DataError(f"{path}: {path.stat().st_size} bytes are no multiple of {RECORD}; download it again")
    try:
        records = np.fromfile(path, np.uint8).reshape(-1, RECORD)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    labels, planes = records[:, 0], records[:, 1:].reshape(-1, 3, 32, 32)
    _require_labels(labels, path)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels  # (N, 32, 32, 3), (N,)


def _load_pictures(folder: Path, section: DataSection) -> Splits:
    labels = dict(zip(("train", "test"), _read_labels(folder), strict=True))
    parts = {
        part: _read_part(folder, numbers, labels["test" if part == "test" else "train"])
        for part, numbers in PICTURES.items()
    }
    train = shuffled(parts["train"], section, "train")
    return finish(section, train, parts["validation"], parts["test"], classes=CLASSES)


def _read_labels(folder: Path) -> list[NDArray[np.uint8]]:
    wanted = ("train_labels", "test_labels")
    for path in sorted(folder.glob("*.npz")):
        if npz_names(path).issuperset(wanted):
            labels = read_npz(path, wanted)
            for part in labels:
                _require_labels(part, path)
            return labels
    raise DataError(f"{folder}: no npz file with train_labels and test_labels beside the pictures; add it")


def _require_labels(labels: NDArray[np.uint8], path: Path) -> None:
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or not np.isin(labels, range(len(CLASSES))).all():
        raise DataError(f"{path}: labels are not all in 0..9; download it again")


def _read_part(folder: Path, numbers: range, labels: NDArray[np.uint8]) -> Labelled:
    found = [number for number in numbers if _picture(folder, number).is_file()]
    if not found:
        raise DataError(f"{folder}: no cifar10_batch_{numbers[0]}.png; download the set again")
    if found != list(range(numbers[0], found[-1] + 1)):
        gap = next(number for number in numbers if number not in found)
        raise DataError(f"{folder}: no cifar10_batch_{gap}.png though later ones are there; download it again")
    pixels = np.concatenate([_read_picture(_picture(folder, number)) for number in found])
    first = 0 if numbers is PICTURES["test"] else ROWS * numbers[0]
    return labelled(pixels, labels[first : first + len(pixels)], str(folder))


def _picture(folder: Path, number: int) -> Path:
    return folder / f"cifar10_batch_{number}.png"


def _read_picture(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.size != (1024, ROWS) or picture.mode != "RGB":
                raise DataError(f"{path}: {picture.mode} {picture.size}, expected RGB 1024 x {ROWS}; download it again")
            return np.asarray(picture).reshape(ROWS, 32, 32, 3)
    except DataError:
        raise
    except _PICTURE_ERRORS as error:
        raise DataError(f"{path}: broken picture ({error}); download it again") from None
