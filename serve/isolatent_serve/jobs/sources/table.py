"""Parquet tables: a column of files, or of their paths, and a column of ids if there is one. Read with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from isolatent_export.inputs import InputError
from isolatent_serve.jobs.confinement import Confinement
from isolatent_serve.jobs.sources.inputs import Input, Locator, SourceError, SourceLimits, clean, too_large

ID = "id"
"""The column that names the rows, where there is one; rows are numbered from 0 otherwise."""
_FIELD = "bytes"
"""Where data sets of the Hugging Face hub keep files, in a column of records {bytes, path}."""
_ROWS = 4096
"""Of ids and paths at a time."""
_BUFFER = 2**20
_LONGEST = 4096
"""Characters of an id or a path."""


def list_table(file: BinaryIO, uri: str, stamp: str, column: str | None, limits: SourceLimits) -> Iterator[Input]:
    """The rows of a table in order. Files in a column of paths are relative to the table. Raises SourceError."""
    confined = _confinement(limits.table_megabytes)
    try:
        with confined:
            opened = _open(file)
        chosen = _column(opened.schema_arrow, uri, column)
        paths = _is_text(opened.schema_arrow.field(chosen).type)
        _require_bounded(opened.metadata, {ID, chosen}, uri, file.seek(0, 2), limits)
        columns = [name for name in ([ID, chosen] if paths else [ID]) if name in opened.schema_arrow.names]
        row = 0
        for group in range(opened.num_row_groups):
            for place, values in enumerate(_rows(opened, group, columns, confined)):
                name = _id(values, row, uri, values.get(chosen) if paths else None)
                if paths:
                    locator = Locator("file", _path(values[chosen], uri, row))
                else:
                    locator = Locator("row", uri, group, place, (stamp, chosen))
                yield Input(clean(name), locator)
                row += 1
    except MemoryError:
        raise SourceError(f"{uri}: {_too_much(limits)}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{uri}: ids or paths that are no UTF-8; write the table again, as text") from None
    except (pa.ArrowException, OSError) as error:
        raise _broken(uri, error) from None


class Rows:
    """Rows of one open table, read forward: the next row asked for is found from where the last one was."""

    def __init__(self, file: BinaryIO, limits: SourceLimits) -> None:
        """Raises InputError when the file is no table any more."""
        self._file, self._limits = file, limits
        self._confined = _confinement(limits.table_megabytes)
        self._group, self._column, self._next = -1, "", 0
        self._cells: Iterator[Any] = iter(())
        self._error: InputError | None = None
        """What is wrong with the rows of the group from the next one on."""
        try:
            with self._confined:
                self._table = _open(file)
        except (pa.ArrowException, OSError, MemoryError) as error:
            file.close()
            raise InputError("unreadable", f"its table is damaged ({_first_line(error)}); begin a new job") from None

    def approach(self, locator: Locator) -> None:
        """Pass over the rows before this one: `read` takes no longer then than the row does."""
        group, row, column = locator.offset, locator.size, str(locator.extra[1])
        if (group, column) != (self._group, self._column) or row < self._next:
            self._group, self._column, self._next = group, column, 0
            self._cells, self._error = self._values(group, column), None
        self._pass_to(row)

    def read(self, locator: Locator) -> bytes | InputError:
        """The file in one row."""
        self.approach(locator)
        cell = self._pass_to(locator.size + 1)
        return self._error or self._content(cell)

    def close(self) -> None:
        """Close the table."""
        self._file.close()

    def _pass_to(self, row: int) -> Any:
        """Read on until `row` is the next one; returns the last one before it, if any was left."""
        cell = None
        try:
            with self._confined:
                while self._next < row and not self._error:
                    cell = next(self._cells)
                    self._next += 1
        except MemoryError:
            self._error = InputError("unreadable", _too_much(self._limits))
        except (pa.ArrowException, OSError, StopIteration, KeyError, IndexError, ValueError) as error:
            detail = f"its row cannot be read ({_first_line(error)}); write the table again"
            self._error = InputError("unreadable", detail)
        return cell

    def _values(self, group: int, column: str) -> Iterator[Any]:
        """One row at a time: a few bytes can stand for a large file in each of many rows."""
        for batch in self._table.iter_batches(1, row_groups=[group], columns=[column], use_threads=False):
            yield from batch.column(0)

    def _content(self, cell: Any) -> bytes | InputError:
        if pa.types.is_struct(cell.type):
            cell = cell[_FIELD] if cell.is_valid else cell
        if not cell.is_valid:
            return InputError("empty_input", "no value in its row; leave the row out")
        data = cell.as_buffer()
        return too_large(data.size, self._limits) if data.size > self._limits.item_bytes else data.to_pybytes()


@cache
def _confinement(megabytes: int) -> Confinement:
    """One for all tables of the process: it takes the limit from before as what to go back to."""
    return Confinement(megabytes)


def _too_much(limits: SourceLimits) -> str:
    return f"a row takes more than {limits.table_megabytes} MiB to read; write the table with smaller row groups"


def _require_bounded(about: pq.FileMetaData, names: set[str], table: str, size: int, limits: SourceLimits) -> None:
    """Raise SourceError for more rows, or more in the columns of these names, than an archive may have."""
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if rows > limits.archive_items or any(group.num_rows < 0 for group in groups):
        raise SourceError(f"{table}: {rows} rows, the limit is {limits.archive_items}; split it into several tables")
    most = min(limits.archive_bytes, limits.archive_ratio * max(size, 4096))
    inside = tuple(f"{name}." for name in names)  # of records
    paths = [f"{about.schema.column(number).path}." for number in range(about.num_columns)]
    numbers = [number for number, path in enumerate(paths) if path.startswith(inside)]
    read = sum(group.column(number).total_uncompressed_size for group in groups for number in numbers)
    if read > most:
        raise SourceError(
            f"{table}: {read} bytes unpacked, where {most} are allowed ({limits.archive_bytes}, and "
            f"{limits.archive_ratio} per packed byte); write it again without compression if you trust it"
        )


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


def _rows(
    opened: pq.ParquetFile, group: int, columns: Sequence[str], confined: Confinement
) -> Iterator[dict[str, Any]]:
    if not columns:
        for _ in range(opened.metadata.row_group(group).num_rows):
            yield {}
        return
    batches = opened.iter_batches(_ROWS, row_groups=[group], columns=list(columns), use_threads=False)
    while True:
        with confined:
            batch = next(batches, None)
            rows = batch.to_pylist() if batch else []
        if batch is None:
            return
        yield from rows


def _id(values: dict[str, Any], row: int, table: str, path: str | None) -> str:
    if ID not in values:
        return str(row) if path is None else path
    if not isinstance(values[ID], str | int) or values[ID] == "":
        raise SourceError(f"{table}: row {row} has no id that is text or a whole number; fill the column {ID!r}")
    name = str(values[ID])
    if len(name) > _LONGEST:
        raise SourceError(f"{table}: row {row} has an id of {len(name)} characters; shorten it to {_LONGEST} or less")
    return name


def _path(path: str | None, uri: str, row: int) -> str:
    """Where a path in a table leads: URIs as they are, others from the folder of the table."""
    if not path or len(path) > _LONGEST:
        raise SourceError(f"{uri}: row {row} has no path, or one of more than {_LONGEST} characters; leave it out")
    if "://" in path or (path.startswith("/") and "://" not in uri):
        return path
    if path.startswith("/"):
        raise SourceError(
            f"{uri}: row {row} has the path {path[:200]!r} of another machine; make it relative, or a URI"
        )
    return f"{uri.rpartition('/')[0]}/{path}"


def _broken(table: str, error: Exception) -> SourceError:
    return SourceError(f"{table}: not a readable Parquet file ({_first_line(error)}); write it again")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
