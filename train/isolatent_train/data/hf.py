"""`hf:NAME` or `hf:NAME:CONFIG`: a data set of the Hugging Face Hub, or a local one, through the `datasets` library.

NAME is that of the Hub, or the path of a folder written by `save_to_disk`, a parquet file, or a folder that
`datasets.load_dataset` understands. Images are the first column of type Image, labels the first of type ClassLabel.
Splits train, validation and test are kept where there are such, with labels; what is missing is drawn from train. No
code of a data set is run: `datasets` of version 4 and later has no loading scripts. A row that names a file instead of
holding its bytes may name one below the folder NAME or among what `datasets` downloaded, and no other.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isolatent_export.inputs import InputError
from isolatent_export.inputs.images import FORMATS
from isolatent_train.config import DataSection
from isolatent_train.data.decoding import LIMITS, decode_all, one_line, report
from isolatent_train.data.files import locate
from isolatent_train.data.forms import IMAGES
from isolatent_train.data.images import NATIVE
from isolatent_train.data.parts import finish, labelled, split
from isolatent_train.data.splits import DataError, Labelled, Rejected, Splits

PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
SAMPLE, LARGEST_NATIVE = 100, 256
"""Images looked at to find the size that all have, and the largest side that is kept."""


def load(place: str, section: DataSection) -> Splits:
    """Download or open, decode and split. Raises DataError: no such set, no images in it, or no `datasets` library."""
    what = f"data 'hf:{place}'"
    tables, folders = _by_part(_open(place, what), what), _folders(place)
    features = tables["train"].features
    image_column, label_column = _column(features, "Image"), _column(features, "ClassLabel")
    if image_column is None:
        raise DataError(f"{what}: no column of images; it has {', '.join(features)}")
    classes = tuple(map(one_line, features[label_column].names)) if label_column else None

    labels = {part: _labels(table, label_column) for part, table in tables.items()}
    encoded = {part: _encoded(table, image_column) for part, table in tables.items() if _usable(labels[part])}
    if "train" not in encoded:
        raise DataError(f"{what}: training images without a label; remove them, or the column {label_column}")
    readers = {part: _Reader(table, image_column, folders) for part, table in encoded.items()}
    spec = IMAGES.spec(section, _native(readers["train"]))
    parts: dict[str, Labelled] = {}
    rejected: list[Rejected] = []
    for part, reader in readers.items():
        names = [f"{part}[{index}]" for index in range(len(reader))]
        decoded = decode_all(names, reader, spec, what, strict=section.strict)
        kept = labels[part]
        parts[part] = labelled(decoded.inputs, None if kept is None else kept[decoded.kept], f"{what}: {part}")
        rejected += decoded.rejected
    report(rejected, sum(map(len, readers.values())), what)
    split_parts = split(parts["train"], section, validation=parts.get("validation"), test=parts.get("test"))
    return finish(section, *split_parts, classes=classes, rejected=tuple(rejected), spec=spec)


def _open(place: str, what: str) -> Any:
    """The Dataset or DatasetDict at the place, before any image is decoded."""
    if not place:
        raise DataError("data 'hf': which data set? write hf:NAME, for example hf:ylecun/mnist")
    datasets = _library()
    path = locate(place, "hf")
    name, _, config = (str(path), "", "") if path.exists() else place.partition(":")
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return datasets.load_from_disk(name)
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=name)
        return datasets.load_dataset(name, config or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = one_line((str(error).splitlines() or [type(error).__name__])[0][:200])
        raise DataError(f"{what}: cannot be opened ({reason}); check the name, the path or the network") from None


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError("data 'hf' needs the datasets library; pip install \"isolatent[hf]\"") from None
    if int(datasets.__version__.split(".")[0]) < 4:  # older ones run the scripts of data sets
        raise DataError(f"data 'hf': datasets {datasets.__version__} is too old; pip install \"isolatent[hf]\"")
    return datasets


def _by_part(opened: Any, what: str) -> dict[str, Any]:
    """Tables by part; a table alone, or the only one of a set, is for training whatever its name."""
    if not isinstance(opened, Mapping):
        return {"train": opened}
    if len(opened) == 1:
        return {"train": next(iter(opened.values()))}
    tables = {
        part: opened[name]
        for part, names in PARTS.items()
        if (name := next((name for name in names if name in opened and len(opened[name])), None))
    }
    if "train" not in tables:
        raise DataError(f"{what}: no split named train; it has {', '.join(opened)}")
    return tables


def _column(features: Any, kind: str) -> str | None:
    return next((name for name, feature in features.items() if type(feature).__name__ == kind), None)


def _labels(table: Any, column: str | None) -> NDArray[np.int64] | None:
    """Labels (N,), -1 where there is none; None without a column of labels."""
    if column is None:
        return None
    return np.array([-1 if label is None else label for label in table[column]], np.int64)


def _usable(labels: NDArray[np.int64] | None) -> bool:
    return labels is None or bool((labels >= 0).all())  # test labels of competitions are hidden


def _encoded(table: Any, column: str) -> Any:
    """The table with its images as files' bytes, for the one decoding function."""
    return table.cast_column(column, type(table.features[column])(decode=False))


def _folders(place: str) -> tuple[str, ...]:
    """Where files that rows name may lie, links resolved: the data set's own folder, and what was downloaded."""
    from huggingface_hub.constants import HF_HUB_CACHE  # comes with datasets

    config, own = _library().config, locate(place, "hf")
    downloads = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH)
    return tuple(map(os.path.realpath, (*([own] if own.is_dir() else []), *downloads, HF_HUB_CACHE)))


class _Reader:
    """The bytes of image i; threads may read at the same time, the table is immutable."""

    def __init__(self, table: Any, column: str, folders: tuple[str, ...]) -> None:
        self._table, self._column, self._folders = table.select_columns([column]), column, folders

    def __len__(self) -> int:
        return len(self._table)

    def __call__(self, index: int) -> bytes:
        image = self._table[index][self._column]
        if image is None or (image["bytes"] is None and image["path"] is None):
            raise InputError("empty_input", "no image in this row; remove it")
        data: bytes = image["bytes"] if image["bytes"] is not None else self._file(image["path"])
        return data

    def _file(self, named: str) -> bytes:
        """The file that a row names, unless it is another of this machine's: whoever made the set chose the name."""
        try:
            path = Path(os.path.realpath(named))
        except ValueError:  # a NUL, or half of a surrogate pair
            raise InputError("undecodable", "the row names no possible file; store the image's bytes") from None
        if not any(path.is_relative_to(folder) for folder in self._folders):
            raise InputError("undecodable", "the row names a file outside of the data set; store the image's bytes")
        if not path.is_file():
            raise InputError("undecodable", "the row names no regular file; store the image's bytes")
        with path.open("rb") as file:
            return file.read(LIMITS.item_bytes + 1)  # one more is refused, without reading all of a huge file


def _native(read: _Reader) -> tuple[int, int, int]:
    """Shape (H, W, C) that a sample of the images has in common, or that of image folders."""
    sizes, modes = set(), set()
    for index in sorted({len(read) * k // SAMPLE for k in range(SAMPLE)} if len(read) else ()):
        try:
            with Image.open(io.BytesIO(read(index)), formats=FORMATS) as image:
                sizes.add((image.height, image.width))
                modes.add(image.mode)
        except (InputError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # left out and named when all are decoded
    height, width = sizes.pop() if len(sizes) == 1 else NATIVE[:2]
    if max(height, width) > LARGEST_NATIVE:
        height, width = NATIVE[:2]
    grey = modes and all(mode in ("1", "L") or mode.startswith("I") for mode in modes)
    return height, width, 1 if grey else NATIVE[2]
