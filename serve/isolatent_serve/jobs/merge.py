"""The end of a job: the listing of its parts, all errors in one file and, when asked for, all results in one file.

Parts are read one after the other: what is in memory does not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from isolatent_export.bundle import file_digest
from isolatent_serve.jobs import folder as files
from isolatent_serve.jobs.folder import JobFolder, written
from isolatent_serve.jobs.spec import JobError

Listing = dict[str, Any]

_ROW_GROUP_BYTES = 8 * 2**20
_COPIED_BYTES = 2**20

TARGETS = {".parquet": "parquet", ".jsonl": "jsonl", ".npz": "npy", ".npy": "npy"}
"""Suffix of one file of all results -> format of the parts that it is made of."""


def finish(folder: JobFolder, into: Path | None = None) -> Listing:
    """Write _listing.json and _errors.jsonl of a job whose shards are all done, and return the listing.

    `into` is a file for all results, in the order of the inputs: FILE.parquet, .jsonl or .npz, or FILE.npy with the
    posterior means (N, d) alone and the ids beside it in FILE.ids.jsonl; its errors, if any, go to FILE.errors.jsonl.
    Raises JobError when shards are left, and when the suffix of `into` does not fit the format of the job.
    """
    with folder.locked():
        if left := folder.todo():
            raise JobError(f"{folder.path}: {len(left)} of {folder.shards} shards are not done; run the job again")
        if into:
            _require_fit(folder, into)
        with written(folder.path / files.ALL_ERRORS) as file:
            _append(file, (folder.errors(number) for number in range(folder.shards)))
        listing = _listing(folder)
        with written(folder.path / files.LISTING) as file:
            file.write(json.dumps(listing, indent=2).encode())
        shutil.rmtree(folder.unpacked, ignore_errors=True)
        if into:
            _merge(folder, into)
        return listing


def merged_errors(into: Path) -> Path:
    """Where the errors go that belong to `into`."""
    return into.with_suffix(".errors.jsonl")


def merged_ids(into: Path) -> Path:
    """Where the ids go that belong to `into`, an .npy file: one JSON string per line."""
    return into.with_suffix(".ids.jsonl")


def _listing(folder: JobFolder) -> Listing:
    counts, parts = folder.counts(), []
    for number in range(folder.shards):
        path = folder.part(number)
        facts = {"rows": folder.counts_of(number).succeeded, "bytes": path.stat().st_size, "sha256": file_digest(path)}
        parts.append({"name": path.name, "index": number, **facts})
    return {
        "isolatent": folder.job.isolatent,
        "model": folder.job.model.model_dump(),
        "outputs": folder.spec.outputs,
        "format": folder.spec.format,
        "counts": {"total": counts.total, "succeeded": counts.succeeded, "failed": counts.failed},
        "skipped": folder.plan.skipped,
        "parts": parts,
    }


def _require_fit(folder: JobFolder, into: Path) -> None:
    suffix = into.suffix.lower()
    if TARGETS.get(suffix) != folder.spec.format:
        fitting = " or ".join(ending for ending, kind in TARGETS.items() if kind == folder.spec.format)
        raise JobError(f"{into}: the parts are {folder.spec.format}; name a file that ends with {fitting}")


def _merge(folder: JobFolder, into: Path) -> None:
    parts = [folder.part(number) for number in range(folder.shards)]
    errors = merged_errors(into)
    if folder.counts().failed:
        with written(errors) as file:
            _append(file, [folder.path / files.ALL_ERRORS])
    else:
        errors.unlink(missing_ok=True)
    if into.suffix.lower() == ".npy":
        with written(merged_ids(into)) as file:
            for name in _ids(parts):
                file.write(json.dumps(name, ensure_ascii=False).encode() + b"\n")
    with written(into) as file:
        _MERGERS[into.suffix.lower()](file, parts)


def _append(file: BinaryIO, paths: Iterable[Path]) -> None:
    """Copy files, those that are there, one after the other."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as part:
            shutil.copyfileobj(part, file, _COPIED_BYTES)


def _parquet(file: BinaryIO, parts: list[Path]) -> None:
    """Row groups of a few MiB, of as many parts as it takes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(parts[0])
    with pq.ParquetWriter(file, schema, use_dictionary=False) as writer:
        waiting: list[Any] = []
        for path in parts:
            with pq.ParquetFile(path) as part:
                waiting.append(part.read(use_threads=False))
            if sum(table.nbytes for table in waiting) >= _ROW_GROUP_BYTES:
                writer.write_table(pa.concat_tables(waiting).combine_chunks())
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())


def _npz(file: BinaryIO, parts: list[Path]) -> None:
    """One array after the other, each streamed out of all parts."""
    with np.load(parts[0], allow_pickle=False) as first:
        names = [name for name in first.files if name != "ids"]
    with zipfile.ZipFile(file, "w") as archive:
        with archive.open("ids.npy", "w", force_zip64=True) as member:
            _stream(member, parts, "ids", _widest(parts))
        for name in names:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _stream(member, parts, name, np.dtype("<f4"))


def _npy(file: BinaryIO, parts: list[Path]) -> None:
    _stream(file, parts, "mean", np.dtype("<f4"))


def _stream(file: Any, parts: list[Path], name: str, dtype: np.dtype[Any]) -> None:
    """One array of all parts together, as npy."""
    shapes = [array.shape for array in _arrays(parts, name)]
    shape = (sum(each[0] for each in shapes), *shapes[0][1:])
    npy.write_array_header_1_0(file, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    for array in _arrays(parts, name):
        file.write(np.ascontiguousarray(array, dtype).tobytes())


def _widest(parts: list[Path]) -> np.dtype[Any]:
    """The text type that holds every id."""
    return np.dtype(f"<U{max(array.dtype.itemsize // 4 for array in _arrays(parts, 'ids')) or 1}")


def _ids(parts: list[Path]) -> Iterator[str]:
    for array in _arrays(parts, "ids"):
        yield from array.tolist()


def _arrays(parts: list[Path], name: str) -> Iterator[Any]:
    for path in parts:
        with np.load(path, allow_pickle=False) as part:
            yield part[name]


_MERGERS: dict[str, Callable[[BinaryIO, list[Path]], None]] = {
    ".parquet": _parquet,
    ".jsonl": _append,
    ".npz": _npz,
    ".npy": _npy,
}
