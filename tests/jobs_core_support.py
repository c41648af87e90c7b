"""Folders of real inputs for tests of batch jobs, and jobs over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from isolatent_export.files import ply
from isolatent_serve.jobs import JobFolder, JobSpec, prepare

CORRUPT = b"\x89PNG\r\n\x1a\nbut nothing of a picture"


def pictures(folder: Path, count: int, *, bad: int = 0) -> Path:
    """A folder of grey PNG pictures 000000.png ..., every `bad`-th of which is broken."""
    folder.mkdir()
    pixels = np.random.default_rng(3).integers(0, 256, (count, 16, 16), np.uint8)
    for place, picture in enumerate(pixels):
        path = folder / f"{place:06d}.png"
        if bad and place % bad == bad - 1:
            path.write_bytes(CORRUPT)
        else:
            Image.fromarray(picture).save(path, compress_level=1)
    return folder


def scans(folder: Path, count: int) -> Path:
    """A folder of point clouds 000.ply ... of 100 points."""
    folder.mkdir()
    for place, cloud in enumerate(np.random.default_rng(4).normal(size=(count, 100, 3))):
        (folder / f"{place:03d}.ply").write_bytes(ply(cloud))
    return folder


def job(path: Path, model: Path, inputs: Path, **changes: Any) -> JobFolder:
    """A planned job with small shards."""
    spec: dict[str, Any] = {"model": model, "inputs": (str(inputs),), "device": "cpu", "shard_items": 10}
    return prepare(JobSpec.model_validate(spec | {"batch_items": 4} | changes), path)


def results(folder: JobFolder) -> dict[str, bytes]:
    """Name -> content of everything that a job has made: parts and errors."""
    kept = [*folder.path.glob("part-*"), *folder.path.glob("_errors/*")]
    return {str(path.relative_to(folder.path)): path.read_bytes() for path in kept}


def failures(folder: JobFolder) -> list[dict[str, Any]]:
    """The lines of all errors."""
    paths = sorted(folder.path.glob("_errors/*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]
