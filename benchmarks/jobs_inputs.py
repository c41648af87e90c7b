"""The files that benchmarks/jobs.py reads, written once to benchmarks/runs/jobs/, and the model of clouds it runs."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from models import FOLDER
from numpy.typing import NDArray
from pictures import pictures
from PIL import Image

from isolatent_export.bundle import Bundle
from isolatent_export.files import ply
from isolatent_train.bundling import export_run
from isolatent_train.config import Config
from isolatent_train.data import load_data
from isolatent_train.data.idx import read_idx
from isolatent_train.loop import train
from isolatent_train.run import Trained

INPUTS = FOLDER.parent / "jobs"
MADE_UP = 2000
"""Different inputs where there are no real ones."""
_POINTS = 1024
_SHORT = ["data.limit=64", "training.epochs=1", "training.tracker=none"]


def source(part: str) -> str:
    """What the files of a part of the benchmark are, in words."""
    if not _data():
        return "made-up clouds" if part == "clouds" else "made-up pictures"
    return "ModelNet10, PLY" if part == "clouds" else "MNIST, PNG"


def images(count: int) -> Path:
    """A folder of so many PNG files of 28 x 28 pixels: MNIST, from its beginning again where it has fewer."""

    def content() -> list[bytes]:
        if data := _data():
            parts = [read_idx(data / "mnist" / f"{name}-images-idx3-ubyte.gz", axes=3) for name in ("train", "t10k")]
            return [_png(image) for image in np.concatenate(parts)[:count]]
        return [_png(image[..., 0]) for image in pictures((28, 28, 1), min(count, MADE_UP))]

    return _folder(f"{'mnist' if _data() else 'pictures'}-{count}", ".png", count, content)


def clouds(most: int) -> Path:
    """A folder of binary PLY files of 1,024 points: ModelNet10, at most so many."""

    def content() -> list[bytes]:
        return [ply(cloud) for cloud in points[:count]]

    points = _modelnet()
    count = min(most, len(points))
    return _folder(f"{'modelnet10' if _data() else 'clouds'}-{count}", ".ply", count, content)


def cloud_bundle(path: Path | None) -> Bundle:
    """The bundle at `path`; without one a model trained for an epoch on a few clouds, as recipe `modelnet10` has it."""
    out = path or FOLDER / "clouds"
    if not out.exists():
        data = _data()
        spec = f"modelnet:{data}/modelnet10/modelnet10_1024_train.h5" if data else "shapes"
        config = Config.load("modelnet10", ["name=bench-clouds", f"data.spec={spec}", *_SHORT])
        splits = load_data(config.data)
        run = train(config, splits, FOLDER / "clouds-run", resume=True)
        export_run(Trained.open(run), splits, {}, out)
    return Bundle.open(out)


def _data() -> Path | None:
    place = os.environ.get("ISOLATENT_DATA")
    return Path(place) if place else None


def _modelnet() -> NDArray[np.float32]:
    """Clouds (N, 1024, 3)."""
    data = _data()
    if data is None:
        return np.random.default_rng(0).normal(size=(MADE_UP, _POINTS, 3)).astype(np.float32)
    parts = []
    for part in ("train", "test"):
        with h5py.File(data / "modelnet10" / f"modelnet10_1024_{part}.h5") as file:
            parts.append(file["data"][:].astype(np.float32))
    return np.concatenate(parts)


def _png(image: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _folder(name: str, suffix: str, count: int, content: Callable[[], list[bytes]]) -> Path:
    """INPUTS/name with `count` files, written unless it is there; contents repeat where there are fewer."""
    folder = INPUTS / name
    if not folder.exists():
        unfinished = INPUTS / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        contents = content()
        for number in range(count):
            (unfinished / f"{number:06d}{suffix}").write_bytes(contents[number % len(contents)])
        unfinished.rename(folder)
    return folder
