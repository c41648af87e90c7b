"""`npz:FILE`: arrays of one's own, or a Keras data set. Nothing is unpickled.

`images` (or `x`) (N, H, W[, 1 or 3]) uint8, or `points` (or `data`, or `x`) (N, M, 3) float, and, if there are any,
`labels` (or `label`, or `y`) (N,): split by the section's fractions. Or `x_train`, `x_test` and, if there are any,
`y_train`, `y_test`: the test part is theirs, validation is a fraction of their training part. Labels are whole numbers
or words; `classes` names them in sorted order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from isolatent_train.config import DataSection
from isolatent_train.data.files import npz_names, read_npz, require_file
from isolatent_train.data.forms import CLOUDS, IMAGES, Form
from isolatent_train.data.parts import finish, labelled, name_labels, split
from isolatent_train.data.splits import DataError, Labelled, Splits

INPUTS = ("images", "points", "data", "x")
LABELS = ("labels", "label", "y")


def load(place: str, section: DataSection) -> Splits:
    """Read and split the archive. Raises DataError naming the array that does not fit."""
    path = require_file(place, "npz")
    names = npz_names(path)
    if {"x_train", "x_test"} <= names:
        (train, test), classes = _read(path, [("x_train", "y_train"), ("x_test", "y_test")], names)
        if train.inputs.shape[1:] != test.inputs.shape[1:]:
            raise DataError(f"{path}: x_train and x_test differ in shape; store them alike")
        return finish(section, *split(train, section, test=test), classes=classes)
    inputs = next((name for name in INPUTS if name in names), None)
    if inputs is None:
        raise DataError(
            f"{path}: no array `images` or `points` (or `x`, or x_train and x_test); "
            f"it holds {', '.join(sorted(names)) or 'none'}"
        )
    labels = next((name for name in LABELS if name in names), "labels")
    (data,), classes = _read(path, [(inputs, labels)], names)
    return finish(section, *split(data, section), classes=classes)


def _read(path: Path, pairs: list[tuple[str, str]], names: set[str]) -> tuple[list[Labelled], tuple[str, ...] | None]:
    arrays = read_npz(path, [inputs for inputs, _ in pairs])
    form = _form(pairs[0][0], arrays[0])
    raw: list[NDArray[Any] | None] = [read_npz(path, [labels])[0] if labels in names else None for _, labels in pairs]
    if all(part is None for part in raw):
        return [labelled(part, None, f"{path}: {pairs[i][0]}", form) for i, part in enumerate(arrays)], None
    numbered, classes = name_labels(*raw, what=str(path))
    parts = zip(arrays, numbered, pairs, strict=True)
    return [labelled(part, labels, f"{path}: {pair[0]}", form) for part, labels, pair in parts], classes


def _form(name: str, array: NDArray[Any]) -> Form:
    """By name; where that says nothing, fractions of the shape (N, M, 3) are points."""
    if name in ("images", "points", "data"):
        return IMAGES if name == "images" else CLOUDS
    return CLOUDS if array.dtype.kind == "f" and array.ndim == 3 and array.shape[2] == 3 else IMAGES
