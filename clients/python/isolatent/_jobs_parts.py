"""The content of a part of a job's results as rows, or as an Arrow table. pyarrow is imported where it is needed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent._errors import APIResponseError, UnsupportedError
from isolatent._jobs_base import BaseJob
from isolatent.types import JobRow, Posterior

_CONSISTENCY = "consistency_kl", "consistency_normalized"
_MALFORMED = (KeyError, TypeError, ValueError, IndexError)
_LINES = 1024
"""JSON lines that are turned into arrays at once."""

Columns = Mapping[str, NDArray[np.float32]]


def rows(job: BaseJob, content: bytes) -> Iterator[JobRow]:
    """The rows of a part. Raises UnsupportedError without pyarrow for Parquet, and APIResponseError for nonsense."""
    try:
        for ids, columns in _parquet(content) if job.format == "parquet" else _jsonl(content):
            yield from _rows(job, ids, columns)
    except _MALFORMED as error:
        raise _nonsense(job, error) from None


def table(job: BaseJob, contents: Iterable[bytes]) -> Any:
    """All parts as one pyarrow.Table, whichever their format. Raises UnsupportedError without pyarrow."""
    pa, pq = _arrow("job.table()")
    try:
        if job.format == "parquet":
            tables = [pq.read_table(io.BytesIO(content)) for content in contents]
        else:
            tables = [_table_of(pa, ids, columns) for content in contents for ids, columns in _jsonl(content)]
    except _MALFORMED as error:  # those of pyarrow are ValueErrors
        raise _nonsense(job, error) from None
    return pa.concat_tables(tables) if tables else pa.table({"id": pa.array([], pa.string())})


def require_arrow(job: BaseJob) -> None:
    """Raise UnsupportedError where rows of the job's parts could not be read, before anything is asked for."""
    if job.format == "parquet":
        _arrow("reading Parquet parts")


def _rows(job: BaseJob, ids: list[str], columns: Columns) -> Iterator[JobRow]:
    mean, variance, kl = (columns[name] for name in ("mean", "variance", "kl"))
    embedding, error = columns.get("embedding"), columns.get("reconstruction_error")
    moved = np.column_stack([columns[name] for name in _CONSISTENCY]) if _CONSISTENCY[0] in columns else None
    for place, name in enumerate(ids):
        yield JobRow(
            name,
            Posterior(mean[place], variance[place], float(kl[place]), job.model, job.version),
            None if embedding is None else embedding[place],
            None if error is None else float(error[place]),
            None if moved is None else moved[place],
        )


def _parquet(content: bytes) -> Iterator[tuple[list[str], Columns]]:
    """Ids and columns (N, ...) of each row group."""
    _, pq = _arrow("reading Parquet parts")
    with pq.ParquetFile(io.BytesIO(content)) as file:
        for number in range(file.num_row_groups):
            found = file.read_row_group(number).combine_chunks()
            columns = {name: _numbers(found[name]) for name in found.column_names if name != "id"}
            yield found["id"].to_pylist(), columns


def _numbers(column: Any) -> NDArray[np.float32]:
    """A column of numbers (N,), or of lists of one size (N, d)."""
    array = column.combine_chunks()
    size = getattr(array.type, "list_size", None)
    values = np.asarray(array.flatten() if size else array, np.float32)
    return values.reshape(len(column), size) if size else values


def _jsonl(content: bytes) -> Iterator[tuple[list[str], Columns]]:
    """Ids and columns (N, ...) of so many lines at a time."""
    lines = content.splitlines()
    for start in range(0, len(lines), _LINES):
        objects = [json.loads(line) for line in lines[start : start + _LINES]]
        names = [name for name in objects[0] if name != "id"]
        columns = {name: np.array([each[name] for each in objects], np.float32) for name in names}
        yield [str(each["id"]) for each in objects], columns


def _table_of(pa: Any, ids: list[str], columns: Columns) -> Any:
    arrays = {name: _arrow_of(pa, values) for name, values in columns.items()}
    return pa.table({"id": pa.array(ids, pa.string()), **arrays})


def _arrow_of(pa: Any, values: NDArray[np.float32]) -> Any:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if values.ndim == 2 else flat


def _arrow(what: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UnsupportedError(
            f"{what} needs pyarrow: pip install pyarrow; or download() the parts, or create(..., format='jsonl')"
        ) from None
    return pyarrow, pyarrow.parquet


def _nonsense(job: BaseJob, error: Exception) -> APIResponseError:
    url = f"/v1/jobs/{job.id}/results"
    return APIResponseError(f"{url}: a part cannot be read as {job.format} ({error!r})", url=url)
