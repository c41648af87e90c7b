"""Parts: what other programs read, in three formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from isolatent_serve.jobs import Encoder, JobFolder, run_shard
from isolatent_serve.jobs.parts import Rows, save
from jobs_core_support import job, pictures

IDS = ["ä/000000.png", '"1"\n', "2" * 40]
COLUMNS = {
    "mean": np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8) / 3,
    "variance": np.full((3, 8), 1e-30, np.float32),
    "kl": np.array([0.1, np.pi, 3e38], np.float32),
}


@pytest.fixture
def written(tmp_path: Path, bundle_path: Path, request: pytest.FixtureRequest) -> JobFolder:
    """A job in the format of the test's parameter, with one part of three rows."""
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 3), format=request.param)
    save(folder, 0, Rows(IDS, COLUMNS), [], folder.spec.bundle().manifest)
    return folder


@pytest.mark.parametrize("written", ["parquet"], indirect=True)
def test_parquet_has_vectors_and_says_what_they_are(written: JobFolder) -> None:
    table = pq.read_table(written.part(0))
    assert table.schema.field("mean").type == pa.list_(pa.float32(), 8)
    assert table["id"].to_pylist() == IDS
    for name, expected in COLUMNS.items():
        np.testing.assert_array_equal(np.array(table[name].to_pylist(), np.float32), expected)
    about = json.loads(table.schema.metadata[b"isolatent"])
    assert (about["model"], about["version"], about["outputs"]) == ("tiny", "1", ["posterior"])
    assert about["model_digest"] == written.spec.model_digest()
    assert "nats" in about["units"]["kl"]


@pytest.mark.parametrize("written", ["jsonl"], indirect=True)
def test_json_lines_read_back_to_the_same_numbers(written: JobFolder) -> None:
    rows = [json.loads(line) for line in written.part(0).read_bytes().splitlines()]
    assert [row["id"] for row in rows] == IDS
    for name, expected in COLUMNS.items():
        np.testing.assert_array_equal(np.array([row[name] for row in rows], np.float32), expected)


@pytest.mark.parametrize("written", ["npy"], indirect=True)
def test_arrays_are_read_without_pickles(written: JobFolder) -> None:
    with np.load(written.part(0), allow_pickle=False) as part:
        assert part["ids"].tolist() == IDS
        for name, expected in COLUMNS.items():
            np.testing.assert_array_equal(part[name], expected)


@pytest.mark.parametrize("written", ["parquet", "jsonl", "npy"], indirect=True)
def test_equal_rows_give_equal_bytes_and_none_are_allowed(written: JobFolder) -> None:
    before, manifest = written.part(0).read_bytes(), written.spec.bundle().manifest
    none = {name: values[:0] for name, values in COLUMNS.items()}
    save(written, 0, Rows([], none), [], manifest)
    assert written.part(0).read_bytes() != before
    save(written, 0, Rows(IDS, COLUMNS), [], manifest)
    assert written.part(0).read_bytes() == before


def test_a_folder_is_a_dataset_whatever_else_lies_in_it(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 25, bad=5))
    encoder = Encoder(folder.spec)
    for number in (0, 2):
        run_shard(folder, number, encoder)
    (folder.path / "_part-000001.parquet.unfinished").write_bytes(b"half of a")
    assert ds.dataset(folder.path, format="parquet").count_rows() == 12


def test_errors_of_an_interrupted_run_do_not_stay(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 3)
    folder = job(tmp_path / "job", bundle_path, images)
    folder.errors(0).parent.mkdir()
    folder.errors(0).write_text("{}\n")
    run_shard(folder, 0, Encoder(folder.spec))
    assert not folder.errors(0).exists()
