"""`idx:DIR`: MNIST, Fashion-MNIST and others in their original idx files, plain or .gz.

    train-images-idx3-ubyte[.gz]    train-labels-idx1-ubyte[.gz]
    t10k-images-idx3-ubyte[.gz]     t10k-labels-idx1-ubyte[.gz]

t10k-* is the test part, in the order of the file. Of 60,000 training images 10,000 drawn with the split seed are for
validation (50,000 / 10,000 / 10,000); of another number, the section's fraction.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from isolatent_train.config import DataSection
from isolatent_train.data.files import require_folder
from isolatent_train.data.parts import finish, hold_out, labelled, name_labels, share
from isolatent_train.data.splits import DataError, Splits

LARGEST = 4 * 2**30
"""Bytes that one file may announce."""

OFFICIAL_TRAIN, OFFICIAL_VALIDATION = 60_000, 10_000


def load(place: str, section: DataSection) -> Splits:
    """Official test part, validation drawn from the training part. Raises DataError naming the file."""
    folder = require_folder(place, "idx")
    images = {part: read_idx(_find(folder, f"{part}-images-idx3-ubyte"), axes=3) for part in ("train", "t10k")}
    labels = {part: read_idx(_find(folder, f"{part}-labels-idx1-ubyte"), axes=1) for part in ("train", "t10k")}
    if images["train"].shape[1:] != images["t10k"].shape[1:]:
        raise DataError(f"{folder}: training and test images differ in size; are they of the same set?")
    (train_labels, test_labels), classes = name_labels(labels["train"], labels["t10k"], what=str(folder))

    all_train = labelled(images["train"], train_labels, f"{folder}: train")
    test = labelled(images["t10k"], test_labels, f"{folder}: t10k")
    official = len(all_train) == OFFICIAL_TRAIN
    count = OFFICIAL_VALIDATION if official else share(all_train, section.validation)
    train, validation = hold_out(all_train, count, section, "validation", stratified=not official)
    return finish(section, train, validation, test, classes=classes)


def read_idx(path: Path, *, axes: int) -> NDArray[np.uint8]:
    """The uint8 array of `axes` axes in an idx file. Raises DataError unless the bytes are what the header says."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _header(file, path, axes)
            size = math.prod(shape)
            body = file.read(size)
            more = bool(file.read(1))
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from None
    if len(body) != size or more:
        held = "more" if more else f"{len(body)} bytes"
        raise DataError(f"{path}: the header announces {size} bytes, the file holds {held}; download it again")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _header(file: IO[bytes] | gzip.GzipFile, path: Path, axes: int) -> tuple[int, ...]:
    head = file.read(4 + 4 * axes)
    magic = struct.pack(">HBB", 0, 8, axes)  # 8: unsigned bytes
    if head[:4] != magic:
        raise DataError(f"{path}: starts with {head[:4].hex()}, an idx file of {axes} axes with {magic.hex()}")
    if len(head) < 4 + 4 * axes:
        raise DataError(f"{path}: cut within the header; download it again")
    shape: tuple[int, ...] = struct.unpack(f">{axes}I", head[4:])
    if 0 in shape or math.prod(shape) > LARGEST:
        raise DataError(f"{path}: announces {' x '.join(map(str, shape))} bytes, which cannot be; download it again")
    return shape


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise DataError(f"{folder}: no {name}[.gz]; it must hold train-* and t10k-*, images and labels")
