"""The finished parts of a job, for those who fetch them: while it runs, after a cancel, and at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from isolatent_export.bundle import file_digest
from isolatent_serve.jobs.folder import LISTING, JobFolder
from isolatent_serve.jobs.schemas import Part
from isolatent_serve.jobs.spec import JobError

MEDIA_TYPES = {"parquet": "application/vnd.apache.parquet", "jsonl": "application/x-ndjson"}

_BLOCK_BYTES = 64 * 2**10


def parts(path: Path, identity: str) -> list[Part]:
    """The finished parts of the job in the folder `path`, none if it has not begun."""
    folder = _opened(path)
    if folder is None:
        return []
    listed = {each["index"]: each["sha256"] for each in _listed(folder)}
    return [_part(folder, number, identity, listed.get(number)) for number in folder.done()]


def part(path: Path, number: int) -> Path | None:
    """The file of a finished part."""
    folder = _opened(path)
    return folder.part(number) if folder and folder.part(number).exists() else None


def errors(path: Path) -> Iterator[bytes]:
    """The lines of inputs that failed, of all finished parts, in blocks."""
    folder = _opened(path)
    if folder is None:
        return
    for number in folder.done():
        try:
            with folder.errors(number).open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block
        except FileNotFoundError:  # nothing of this part failed
            continue


def remove(path: Path) -> None:
    """Remove a job's folder, results and all."""
    shutil.rmtree(path, ignore_errors=True)


def _opened(path: Path) -> JobFolder | None:
    try:
        folder = JobFolder(path)
    except JobError:
        return None
    return folder if folder.planned else None


def _listed(folder: JobFolder) -> list[dict[str, Any]]:
    """What the listing says of each part, once the job is done."""
    try:
        return list(json.loads((folder.path / LISTING).read_bytes())["parts"])
    except FileNotFoundError:
        return []


def _part(folder: JobFolder, number: int, identity: str, digest: str | None) -> Part:
    file = folder.part(number)
    facts = file.stat()
    return Part(
        index=number,
        rows=folder.counts_of(number).succeeded,
        bytes=facts.st_size,
        sha256=digest or _digest(file, facts.st_mtime_ns, facts.st_size),
        href=f"/v1/jobs/{identity}/results/{number}",
    )


@lru_cache(maxsize=16384)
def _digest(path: Path, _changed: int, _size: int) -> str:
    """sha256 of a part, which never changes."""
    return file_digest(path)
