"""`modelnet:PLACE`: ModelNet10, ModelNet40 and others in HDF5: `data` (N, M, 3) float, `label` (N,) or (N, 1) integers.

PLACE is one of the files, ..._train.h5 or ..._test.h5, and the other lies beside it; or a folder with one or more files
of each part, such as ply_data_train0.h5 and ply_data_test0.h5. The test part is theirs, in the order of the files;
validation is the section's fraction of the training clouds, drawn by class with the split seed. A file without such a
companion is split by the section's fractions. Classes are named by the lines of shape_names.txt beside the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_train.config import DataSection
from isolatent_train.data.files import require_path
from isolatent_train.data.forms import CLOUDS
from isolatent_train.data.hdf5 import read_hdf5
from isolatent_train.data.parts import finish, hold_out, labelled, name_labels, share, split
from isolatent_train.data.splits import DataError, Splits

NAMES = "shape_names.txt"

Array = NDArray[Any]


def load(place: str, section: DataSection) -> Splits:
    """Read, name and split the clouds. Raises DataError naming the file that is missing or does not fit."""
    path = require_path(place, "modelnet")
    files = _by_part(path)
    if not files["train"]:
        raise DataError(f"{path}: no training part; add *train*.h5, or name a single .h5 file")
    read = {part: _read(paths) for part, paths in files.items() if paths}
    names = _names(files["train"][0].parent)
    labels, classes = name_labels(*(_named(label, names, path) for _, label in read.values()), what=str(path))
    parts = {
        part: labelled(points, numbered, f"{path}: {part}", CLOUDS)
        for (part, (points, _)), numbered in zip(read.items(), labels, strict=True)
    }
    if "test" not in parts:
        return finish(section, *split(parts["train"], section), classes=classes)
    count = share(parts["train"], section.validation)
    train, validation = hold_out(parts["train"], count, section, "validation", stratified=True)
    return finish(section, train, validation, parts["test"], classes=classes)


def _by_part(path: Path) -> dict[str, list[Path]]:
    """Files of the training and of the test part, sorted; a file without a companion is for training."""
    if path.is_dir():
        found = sorted((*path.glob("*.h5"), *path.glob("*.hdf5")))
        return {part: [file for file in found if part in file.name] for part in ("train", "test")}
    companions = {part: path.with_name(_renamed(path.name, part)) for part in ("train", "test")}
    if len(set(companions.values())) == 2 and all(file.is_file() for file in companions.values()):
        return {part: [file] for part, file in companions.items()}
    return {"train": [path], "test": []}


def _renamed(name: str, part: str) -> str:
    """The name of the companion of that part: ..._train.h5 and ..._test.h5 belong together."""
    before, found, after = name.rpartition("test" if part == "train" else "train")
    return f"{before}{part}{after}" if found else name


def _read(paths: list[Path]) -> tuple[Array, Array]:
    """Points (N, M, 3) and labels (N,) of all the files of one part."""
    pairs = [read_hdf5(path, "data", "label") for path in paths]
    for path, (points, labels) in zip(paths, pairs, strict=True):
        if points.ndim != 3 or points.shape[1:] != pairs[0][0].shape[1:]:
            raise DataError(f"{path}: data of shape {points.shape}; store (N, M, 3), with the same M in all files")
        if labels.shape not in ((len(points),), (len(points), 1)) or labels.dtype.kind not in "iu":
            raise DataError(f"{path}: labels {labels.dtype} {labels.shape}; store one whole number for each cloud")
    return np.concatenate([points for points, _ in pairs]), np.concatenate([labels.reshape(-1) for _, labels in pairs])


def _names(folder: Path) -> Array | None:
    file = folder / NAMES
    if not file.is_file():
        return None
    try:
        return np.array(file.read_text(encoding="utf-8").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); write one class name per line") from None


def _named(labels: Array, names: Array | None, path: Path) -> Array:
    if names is None:
        return labels
    if labels.max(initial=0) >= len(names) or labels.min(initial=0) < 0:
        raise DataError(f"{path}: label {labels.max()} has no line in {NAMES}; add it, or remove the file")
    return names[labels]
