"""Parquet tables: columns of files and of paths, ids, row groups of any size."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isolatent_serve.jobs.sources import Reader, SourceLimits
from sources_support import contents, error, ids, listed, png, read, refusal


def table(path: Path, /, rows: int = 50, column: str | None = "image", **columns: Any) -> Path:
    """Pictures, one per row, in row groups of 7."""
    files = {column: [png(row) for row in range(rows)]} if column else {}
    pq.write_table(pa.table({**files, **columns}), path, row_group_size=7)
    return path


def test_rows_are_numbered_where_they_have_no_id(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", label=list(range(50)))
    assert read(path) == {str(row): png(row) for row in range(50)}


@pytest.mark.parametrize("name", [lambda row: f"x/{row}.png", lambda row: row * 10])
def test_the_column_id_names_the_rows(tmp_path: Path, name: Any) -> None:
    path = table(tmp_path / "a.parquet", id=[name(row) for row in range(50)])
    assert read(path) == {str(name(row)): png(row) for row in range(50)}


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.struct([("bytes", pa.binary()), ("path", pa.string())])]
)
def test_files_are_bytes_of_any_width_or_the_hubs_records(tmp_path: Path, kind: pa.DataType) -> None:
    cells: list[Any] = [png(row) for row in range(9)]
    if pa.types.is_struct(kind):
        cells = [{"bytes": cell, "path": "x"} for cell in cells]
    path = table(tmp_path / "a.parquet", column=None, image=pa.array(cells, kind))
    assert read(path) == {str(row): png(row) for row in range(9)}


def test_a_column_of_paths_is_relative_to_the_table(folder: Path, pictures: dict[str, bytes]) -> None:
    path = table(folder / "index.parquet", column=None, path=list(pictures), label=[0] * len(pictures))
    assert read(path) == pictures


def test_paths_do_not_lead_out_of_the_allowed_folders(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(0))
    paths = ["0.png", "../secret.png", "/etc/passwd", "s3://bucket/x.png", "file:///etc/passwd"]
    path = table(folder / "index.parquet", column=None, path=paths)
    found = read(path, limits=SourceLimits(roots=(str(folder),)))
    assert [isinstance(content, bytes) for content in found.values()] == [True, False, False, False, False]
    assert {error(found[name]).code for name in paths[1:]} <= {"unreadable", "bad_source"}


def test_a_cell_does_not_lead_to_what_was_unpacked_or_beyond_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(0))
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    (unpacked / "000000.tar").write_bytes(png(0))
    cells = [f"unpacked://{tmp_path}/secret.png", "unpacked:../secret.png", "unpacked:000000.tar", "http://[x"]
    path = table(folder / "index.parquet", column=None, path=cells)
    found = read(path, unpack=unpacked, limits=SourceLimits(roots=(str(folder),)))
    assert [error(each).code for each in found.values()] == ["bad_source", "unreadable", "unreadable", "bad_source"]


def test_a_cell_that_is_no_address_is_an_error_of_its_own(folder: Path, pictures: dict[str, bytes]) -> None:
    found = read(table(folder / "index.parquet", column=None, path=["http://[x", "0.png"]))
    assert "no address" in error(found["http://[x"]).detail
    assert found["0.png"] == pictures["0.png"]


def test_ids_that_are_no_text_are_refused(tmp_path: Path) -> None:
    broken = pa.array([b"\xff"], pa.binary()).view(pa.string())
    assert "no UTF-8" in refusal(table(tmp_path / "a.parquet", rows=1, id=broken))
    assert "an id of 5000 characters" in refusal(table(tmp_path / "b.parquet", rows=1, id=["n" * 5000]))
    assert "one of more than 4096" in refusal(table(tmp_path / "c.parquet", column=None, path=["n" * 5000]))


def test_more_rows_or_bytes_than_an_archive_may_have_are_refused_by_the_footer(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet")
    assert "50 rows, the limit is 49" in refusal(path, limits=SourceLimits(archive_items=49))
    assert "where 1000 are allowed" in refusal(path, limits=SourceLimits(archive_bytes=1000))
    assert len(listed(path, limits=SourceLimits(archive_items=50))) == 50
    pq.write_table(pa.table({"image": [bytes(2**22)]}), tmp_path / "b.parquet", compression="gzip")
    assert "200 per packed byte" in refusal(tmp_path / "b.parquet")


def repeated(path: Path, name: str, value: Any, rows: int) -> Path:
    """A small table of large cells: one value in a dictionary, which every row refers to."""
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))
    options: dict[str, Any] = {"compression": "none", "dictionary_pagesize_limit": 2**30, "store_schema": False}
    pq.write_table(pa.table({name: cells, "label": [b"x"] * rows}), path, **options)
    return path


def outcomes(path: Path, megabytes: int) -> list[str]:
    """The sizes of all rows, or what is wrong with them, from a process that has not kept memory of other work."""
    code = """if True:
        import sys
        from isolatent_serve.jobs.sources import SourceLimits, list_inputs, open_items
        items = [each.locator for each in list_inputs([sys.argv[1]], column="image")]
        for found in open_items(items, SourceLimits(table_megabytes=int(sys.argv[2]), item_bytes=2**26)):
            print(len(found) if isinstance(found, bytes) else found)
    """
    command = [sys.executable, "-c", code, path, str(megabytes)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_many_rows_that_share_a_large_value_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = repeated(tmp_path / "a.parquet", "image", bytes(2**24), 20)
    assert outcomes(path, 160) == [str(2**24)] * 20


def test_a_row_that_takes_too_much_memory_is_an_error_and_so_are_those_after_it(tmp_path: Path) -> None:
    path = repeated(tmp_path / "a.parquet", "image", bytes(2**26), 3)
    said = outcomes(path, 64)
    assert ["more than 64 MiB to read" in line for line in said] == [True] * 3


def test_ids_that_take_too_much_memory_are_refused(tmp_path: Path) -> None:
    path = repeated(tmp_path / "a.parquet", "id", "n" * 2**20, 200)
    assert "more than 64 MiB to read" in refusal(path, column="label", limits=SourceLimits(table_megabytes=64))


def test_reading_a_row_takes_no_longer_for_those_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"%d" % row for row in range(50_000)]}), path)
    last = listed(path)[-1].locator
    with contextlib.closing(Reader()) as reader:
        began = time.process_time()
        reader.approach(last)
        passed = time.process_time()
        assert list(reader.items([last])) == [b"49999"]
        assert time.process_time() - passed < (passed - began) / 10


def test_rows_are_read_in_any_order_and_forward_without_starting_over(tmp_path: Path) -> None:
    items = listed(table(tmp_path / "a.parquet"))
    assert list(contents(items[::-1]).values()) == [png(row) for row in range(50)][::-1]
    reader = Reader()
    assert list(reader.items(each.locator for each in items[2:4])) == [png(2), png(3)]
    (tmp_path / "a.parquet").unlink()  # what is open goes on
    assert list(reader.items(each.locator for each in items[5:7])) == [png(5), png(6)]
    reader.close()


def test_an_empty_cell_and_a_large_one_are_errors_of_their_own(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", column=None, image=pa.array([None, bytes(2000), png(1)], pa.binary()))
    found = read(path, limits=SourceLimits(item_bytes=1000))
    assert [error(found[row]).code for row in ("0", "1")] == ["empty_input", "too_many_bytes"]
    assert found["2"] == png(1)


def test_a_table_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    items = listed(table(tmp_path / "a.parquet"))
    table(tmp_path / "a.parquet", rows=3)
    assert {error(found).code for found in contents(items).values()} == {"unreadable"}


def test_the_column_has_to_be_named_where_several_can_be_meant(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", thumb=[b"-"] * 50, label=list(range(50)))
    assert "2 columns of files or paths among image, thumb, label" in refusal(path)
    assert "no column 'pixels'" in refusal(path, column="pixels")
    assert "'label' is of int64" in refusal(path, column="label")
    assert read(path, column="image")["7"] == png(7)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100))
    assert "not a readable Parquet file" in refusal(tmp_path / "a.parquet")
    assert "no column of files" in refusal(table(tmp_path / "b.parquet", column=None, label=[1]))
    assert "row 0 has no id" in refusal(table(tmp_path / "c.parquet", rows=1, id=pa.array([None], pa.string())))


def test_a_table_damaged_anywhere_is_refused_or_read_with_errors(tmp_path: Path) -> None:
    data = table(tmp_path / "a.parquet", rows=20).read_bytes()
    path = tmp_path / "damaged.parquet"
    for place in range(4, len(data), 29):
        damaged = bytearray(data)
        damaged[place] ^= 0x41
        path.write_bytes(damaged)
        try:
            assert len(contents(listed(path))) <= 20
        except Exception as refused:
            assert type(refused).__name__ == "SourceError", refused  # noqa: PT017 - either is right


def test_several_tables_are_folders(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", rows=1)
    table(tmp_path / "b.parquet", rows=2)
    assert ids(tmp_path / "*.parquet") == ["a.parquet/0", "b.parquet/0", "b.parquet/1"]
