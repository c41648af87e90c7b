"""Parquet tables: a column of files, or of their paths, and a column of ids if there is one. Read with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from isolatent_export.inputs import InputError
from isolatent_serve.jobs.sources.inputs import Input, Locator, SourceError, SourceLimits, clean, too_large

ID = "id"
"""The column that names the rows, where there is one; rows are numbered from 0 otherwise."""
_FIELD = "bytes"
"""Where data sets of the Hugging Face hub keep files, in a column of records {bytes, path}."""
_ROWS = 4096
"""Of ids and paths at a time."""
_FILES = 16
"""Rows of files at a time: a few are in memory, however large the row group is."""
_BUFFER = 2**20


def list_table(file: BinaryIO, uri: str, stamp: str, table: str, column: str | None) -> Iterator[Input]:
    """The rows of a table in order. Files in a column of paths are relative to the table. Raises SourceError."""
    try:
        opened = _open(file)
        chosen = _column(opened.schema_arrow, table, column)
        paths = _is_text(opened.schema_arrow.field(chosen).type)
        columns = [name for name in ([ID, chosen] if paths else [ID]) if name in opened.schema_arrow.names]
        row = 0
        for group in range(opened.num_row_groups):
            for place, values in enumerate(_rows(opened, group, columns)):
                name = _id(values, row, table, values.get(chosen) if paths else None)
                if paths:
                    locator = Locator("file", _path(values[chosen], uri, table, row))
                else:
                    locator = Locator("row", uri, group, place, (stamp, chosen))
                yield Input(clean(name), locator)
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise _broken(table, error) from None


class Rows:
    """Rows of one open table, read forward: the next row asked for is found from where the last one was."""

    def __init__(self, file: BinaryIO, limits: SourceLimits) -> None:
        """Raises InputError when the file is no table any more."""
        self._file, self._limits = file, limits
        try:
            self._table = _open(file)
        except (pa.ArrowException, OSError) as error:
            raise InputError("unreadable", f"its table is damaged ({_first_line(error)}); begin a new job") from None
        self._group, self._column, self._next = -1, "", 0
        self._cells: Iterator[Any] = iter(())

    def read(self, locator: Locator) -> bytes | InputError:
        """The file in one row."""
        group, row, column = locator.offset, locator.size, str(locator.extra[1])
        try:
            if (group, column) != (self._group, self._column) or row < self._next:
                self._group, self._column, self._next = group, column, 0
                self._cells = self._values(group, column)
            cell = None
            while self._next <= row:
                cell = next(self._cells)
                self._next += 1
        except (pa.ArrowException, OSError, StopIteration, KeyError, IndexError, ValueError) as error:
            self._group = -1
            return InputError("unreadable", f"its row cannot be read ({_first_line(error)}); write the table again")
        return self._content(cell)

    def close(self) -> None:
        """Close the table."""
        self._file.close()

    def _values(self, group: int, column: str) -> Iterator[Any]:
        for batch in self._table.iter_batches(_FILES, row_groups=[group], columns=[column], use_threads=False):
            yield from batch.column(0)

    def _content(self, cell: Any) -> bytes | InputError:
        if pa.types.is_struct(cell.type):
            cell = cell[_FIELD] if cell.is_valid else cell
        if not cell.is_valid:
            return InputError("empty_input", "no value in its row; leave the row out")
        data = cell.as_buffer()
        return too_large(data.size, self._limits) if data.size > self._limits.item_bytes else data.to_pybytes()


def _open(file: BinaryIO) -> pq.ParquetFile:
    return pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)


def _column(schema: pa.Schema, table: str, column: str | None) -> str:
    """The column of files or paths: the one that is named, or the only one that can be it."""
    files = [field.name for field in schema if _is_file(field.type)]
    paths = [field.name for field in schema if _is_text(field.type) and field.name != ID]
    there = ", ".join(schema.names[:20])
    if column is None:
        candidates = files or paths
        if len(candidates) != 1:
            of = f"{len(candidates)} columns" if candidates else "no column"
            raise SourceError(f"{table}: {of} of files or paths among {there}; name one with --column")
        return str(candidates[0])
    if schema.names.count(column) != 1:
        raise SourceError(f"{table}: no column {column!r}, or several, among {there}; name one of these")
    if column not in (*files, *paths):
        kind = schema.field(column).type
        raise SourceError(f"{table}: the column {column!r} is of {kind}; name one of bytes, or of paths as text")
    return column


def _is_file(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index(_FIELD) >= 0 and _is_file(kind.field(_FIELD).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _rows(opened: pq.ParquetFile, group: int, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        for _ in range(opened.metadata.row_group(group).num_rows):
            yield {}
        return
    for batch in opened.iter_batches(_ROWS, row_groups=[group], columns=list(columns), use_threads=False):
        yield from batch.to_pylist()


def _id(values: dict[str, Any], row: int, table: str, path: str | None) -> str:
    if ID not in values:
        return str(row) if path is None else path
    if not isinstance(values[ID], str | int) or values[ID] == "":
        raise SourceError(f"{table}: row {row} has no id that is text or a whole number; fill the column {ID!r}")
    return str(values[ID])


def _path(path: str | None, uri: str, table: str, row: int) -> str:
    """Where a path in a table leads: URIs as they are, others from the folder of the table."""
    if not path:
        raise SourceError(f"{table}: row {row} has no path; leave the row out")
    if "://" in path or (path.startswith("/") and "://" not in uri):
        return path
    if path.startswith("/"):
        raise SourceError(
            f"{table}: row {row} has the path {path[:200]!r} of another machine; make it relative, or a URI"
        )
    return f"{uri.rpartition('/')[0]}/{path}"


def _broken(table: str, error: Exception) -> SourceError:
    return SourceError(f"{table}: not a readable Parquet file ({_first_line(error)}); write it again")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
