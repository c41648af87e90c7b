"""Data sets through the `datasets` library, made here and read without a network."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isolatent_export.inputs import Limits
from isolatent_train.config import DataSection
from isolatent_train.data import DataError, Splits, load_data


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, offline and with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return library


def load(place: object, **section: Any) -> Splits:
    return load_data(DataSection(spec=f"hf:{place}", **section))


def png(seed: int, side: int = 8, mode: str = "L") -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def table(datasets: Any, images: list[bytes | None], labels: bool = True) -> Any:
    """A Dataset sorted by class, half no, half yes."""
    columns: dict[str, Any] = {"number": list(range(len(images)))}
    columns["picture"] = [None if data is None else {"bytes": data, "path": None} for data in images]
    features = {"number": datasets.Value("int64"), "picture": datasets.Image()}
    if labels:
        columns["kind"] = [2 * index // len(images) for index in range(len(images))]
        features["kind"] = datasets.ClassLabel(names=["no", "yes"])
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


def test_a_saved_table_is_split_by_class_at_its_native_size(datasets: Any, tmp_path: Path) -> None:
    table(datasets, [png(seed) for seed in range(100)]).save_to_disk(tmp_path / "set")
    splits = load(tmp_path / "set")
    assert splits.counts() == {"train": 70, "validation": 10, "test": 20}
    assert splits.spec.shape == (8, 8, 1)
    assert splits.classes == ("no", "yes")
    assert splits.test.labels is not None
    assert splits.test.labels.bincount().tolist() == [10, 10]
    assert load(tmp_path / "set").fingerprint() == splits.fingerprint()
    parts = (splits.train, splits.validation, splits.test)
    assert len({image.numpy().tobytes() for part in parts for image in part.inputs}) == 100


def test_splits_of_the_set_are_kept(datasets: Any, tmp_path: Path) -> None:
    both = {
        name: table(datasets, [png(seed) for seed in range(count)]) for name, count in (("train", 40), ("test", 12))
    }
    datasets.DatasetDict(both).save_to_disk(tmp_path / "set")
    assert load(tmp_path / "set").counts() == {"train": 36, "validation": 4, "test": 12}
    both["valid"] = table(datasets, [png(1)] * 6)
    datasets.DatasetDict(both).save_to_disk(tmp_path / "three")
    assert load(tmp_path / "three").counts() == {"train": 40, "validation": 6, "test": 12}


def test_a_test_part_with_hidden_labels_is_not_used(datasets: Any, tmp_path: Path) -> None:
    train = table(datasets, [png(seed) for seed in range(40)])
    hidden = train.select(range(10)).map(lambda _row: {"kind": -1})
    datasets.DatasetDict({"train": train, "test": hidden}).save_to_disk(tmp_path / "set")
    assert load(tmp_path / "set").counts() == {"train": 28, "validation": 4, "test": 8}
    hidden.save_to_disk(tmp_path / "hidden")
    with pytest.raises(DataError, match="training images without a label"):
        load(tmp_path / "hidden")


def test_images_of_many_sizes_become_64_by_64_in_colour(datasets: Any, tmp_path: Path) -> None:
    table(datasets, [png(seed, 8 + seed, "RGB") for seed in range(20)], labels=False).save_to_disk(tmp_path / "set")
    splits = load(tmp_path / "set")
    assert splits.spec.shape == (64, 64, 3)
    assert splits.train.labels is None
    assert load(tmp_path / "set", size=9, channels=1).spec.shape == (9, 9, 1)


def test_parquet_files_and_image_folders_are_read(datasets: Any, tmp_path: Path) -> None:
    table(datasets, [png(seed) for seed in range(30)]).to_parquet(tmp_path / "set.parquet")
    assert sum(load(tmp_path / "set.parquet").counts().values()) == 30
    for seed in range(30):
        file = tmp_path / "folder" / ("cat", "dog")[seed % 2] / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(seed))
    splits = load(tmp_path / "folder")
    assert splits.classes == ("cat", "dog")
    assert sum(splits.counts().values()) == 30


def test_rows_that_cannot_be_read_are_left_out_and_named(datasets: Any, tmp_path: Path) -> None:
    images: list[bytes | None] = [png(seed) for seed in range(20)]
    images[3], images[17] = None, b"rubbish"
    table(datasets, images).save_to_disk(tmp_path / "set")
    splits = load(tmp_path / "set")
    assert [item.path for item in splits.rejected] == ["train[3]", "train[17]"]
    assert splits.rejected[0].reason == "no image in this row; remove it"
    assert sum(splits.counts().values()) == 18
    with pytest.raises(DataError, match=r"train\[3\]: no image in this row"):
        load(tmp_path / "set", strict=True)


def named(datasets: Any, folder: Path, paths: Sequence[Path | str]) -> Path:
    """A set in a folder, whose rows name files instead of holding bytes."""
    rows = [{"bytes": None, "path": str(path)} for path in paths]
    folder.mkdir(exist_ok=True)
    features = datasets.Features({"picture": datasets.Image()})
    table = datasets.Dataset.from_dict({"picture": rows}, features).data.table
    pytest.importorskip("pyarrow.parquet").write_table(table, folder / "set.parquet")
    return folder


def test_rows_may_name_files_of_the_set_alone(datasets: Any, tmp_path: Path) -> None:
    folder, secret = tmp_path / "set", tmp_path / "secret"
    folder.mkdir()
    own = [folder / str(seed) for seed in range(12)]  # no suffix, or `datasets` takes the pictures for the set
    for seed, path in enumerate([*own, secret]):
        path.write_bytes(png(seed))
    (folder / "link").symlink_to(secret)
    strangers = (secret, folder / "link", folder / ".." / "secret", "/dev/zero")
    splits = load(named(datasets, folder, [*own, *strangers, "a\0b"]))
    assert sum(splits.counts().values()) == 12
    reasons = [item.reason for item in splits.rejected]
    assert reasons[:4] == ["the row names a file outside of the data set; store the image's bytes"] * 4
    assert reasons[4:] == ["the row names no possible file; store the image's bytes"]


def test_files_that_rows_name_are_read_as_far_as_the_limit(
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [tmp_path / "set" / name for name in (*map(str, range(12)), "pipe", "huge")]
    named(datasets, tmp_path / "set", own)
    for seed, path in enumerate(own[:12]):
        path.write_bytes(png(seed))
    os.mkfifo(own[12])
    with own[13].open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    for module in ("hf", "decoding"):
        monkeypatch.setattr(f"isolatent_train.data.{module}.LIMITS", Limits(item_bytes=1000))
    reasons = [item.reason for item in load(tmp_path / "set").rejected]
    assert reasons[0] == "the row names no regular file; store the image's bytes"
    assert "the limit is 1000 per item" in reasons[1]


def test_sets_that_do_not_fit_are_said(datasets: Any, tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(DataError, match="no column of images; it has text"):
        load(tmp_path / "text")
    pair = {name: table(datasets, [png(0)]) for name in ("one", "two")}
    datasets.DatasetDict(pair).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="no split named train; it has one, two"):
        load(tmp_path / "set")
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", "nobody/nothing", "nobody/nothing:config"):
        with pytest.raises(DataError, match=r"cannot be opened .*check the name, the path or the network"):
            load(place)


def test_scripts_of_a_data_set_are_not_run(datasets: Any, tmp_path: Path) -> None:  # noqa: ARG001
    script = tmp_path / "evil" / "evil.py"
    script.parent.mkdir()
    script.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    with pytest.raises(DataError, match="cannot be opened"):
        load(tmp_path / "evil")
    assert not (tmp_path / "sprung").exists()


def test_without_a_name_or_the_library_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="write hf:NAME"):
        load("")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r'pip install "isolatent\[hf\]"'):
        load("mnist")
