"""Results as their readers see them: nothing of ours is imported to read a folder of parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pyarrow.parquet
import pytest

from isolatent_serve.jobs import JobFolder, finish, local
from jobs_core_support import job, pictures

DOCS = Path(__file__).parents[3] / "docs" / "jobs.md"
NAMES = [f"{place:06d}.png" for place in range(25) if place % 10 != 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> JobFolder:
    """A job over 25 pictures in three parts, two of them broken."""
    place = tmp_path_factory.mktemp("reading")
    found = job(place / "out", bundle_path, pictures(place / "images", 25, bad=10), outputs=("embedding",))
    local.run(found, 1)
    finish(found)
    return found


@pytest.fixture(scope="module")
def means(folder: JobFolder) -> np.ndarray:
    """The means (23, 8) as pyarrow reads them."""
    table = pyarrow.dataset.dataset(folder.path).to_table()
    assert table["id"].to_pylist() == NAMES
    return np.array(table["mean"].to_pylist(), np.float32)


def test_duckdb_reads_the_parts(folder: JobFolder, means: np.ndarray) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as database:
        rows = database.execute(f"SELECT id, mean, kl FROM '{folder.path}/*.parquet' ORDER BY id").fetchall()
        distance = "list_distance(embedding, ?)"
        query = f"SELECT id FROM '{folder.path}/*.parquet' ORDER BY {distance} LIMIT 1"
        nearest = database.execute(query, [means[7].tolist()]).fetchall()
    assert [row[0] for row in rows] == NAMES
    assert np.array_equal(np.array([row[1] for row in rows], np.float32), means)
    assert nearest == [(NAMES[7],)]


def test_polars_reads_the_parts(folder: JobFolder, means: np.ndarray) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(f"{folder.path}/*.parquet")
    assert frame["id"].to_list() == NAMES
    assert frame.schema["mean"] == polars.Array(polars.Float32, 8)
    assert np.array_equal(frame["mean"].to_numpy(), means)


def test_the_examples_of_the_docs_run(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb")
    pytest.importorskip("polars")
    section = DOCS.read_text().partition("## Read the results")[2].partition("\n## ")[0]
    examples = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(examples) == 3
    monkeypatch.chdir(folder.path.parent)
    folder.path.parent.joinpath("results").symlink_to(folder.path)
    found: dict[str, Any] = {}
    for example in examples:
        exec(example, found)
    assert found["vectors"].shape == (23, 8)
    assert found["nearest"][0] == (NAMES[0], 0.0)


def test_pandas_reads_the_folder(folder: JobFolder, means: np.ndarray) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(folder.path)
    assert frame["id"].tolist() == NAMES
    assert np.array_equal(np.stack(frame["mean"].to_list()), means)
