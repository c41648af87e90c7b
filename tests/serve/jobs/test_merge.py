"""The end of a job: the listing, and everything in one file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isolatent_serve.jobs import Encoder, JobError, JobFolder, finish, merge, run_shard
from jobs_core_support import failures, job, pictures


def finished(path: Path, bundle: Path, images: Path, form: str) -> JobFolder:
    folder = job(path, bundle, images, format=form)
    encoder = Encoder(folder.spec)
    for number in folder.todo():
        run_shard(folder, number, encoder)
    return folder


def test_the_listing_says_what_there_is(tmp_path: Path, bundle_path: Path) -> None:
    folder = finished(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 25, bad=10), "parquet")
    listing = finish(folder)
    assert listing == json.loads((folder.path / "_listing.json").read_text()) | {"outputs": listing["outputs"]}
    assert listing["counts"] == {"total": 25, "succeeded": 23, "failed": 2}
    assert [part["rows"] for part in listing["parts"]] == [9, 9, 5]
    last = listing["parts"][2]
    content = (folder.path / last["name"]).read_bytes()
    assert (last["bytes"], last["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    lines = (folder.path / "_errors.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == failures(folder)


def test_a_job_that_is_not_done_is_not_finished(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 25))
    run_shard(folder, 0, Encoder(folder.spec))
    with pytest.raises(JobError, match="2 of 3 shards are not done; run the job again"):
        finish(folder)


@pytest.mark.parametrize("group_bytes", [1, 2**23])
def test_one_parquet_file_is_all_parts_in_order(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, group_bytes: int
) -> None:
    monkeypatch.setattr(merge, "_ROW_GROUP_BYTES", group_bytes)
    folder = finished(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 25, bad=10), "parquet")
    finish(folder, into=tmp_path / "all.parquet")
    merged = pq.ParquetFile(tmp_path / "all.parquet")
    parts = pa.concat_tables([pq.read_table(folder.part(number)) for number in range(3)])
    assert merged.read().equals(parts)
    assert merged.schema_arrow.metadata == pq.read_schema(folder.part(0)).metadata
    assert merged.num_row_groups == (3 if group_bytes == 1 else 1)
    assert (tmp_path / "all.errors.jsonl").read_bytes() == (folder.path / "_errors.jsonl").read_bytes()


def test_one_file_of_json_lines(tmp_path: Path, bundle_path: Path) -> None:
    folder = finished(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 25), "jsonl")
    (tmp_path / "all.errors.jsonl").write_text("of an earlier job\n")
    finish(folder, into=tmp_path / "all.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_bytes().splitlines()]
    assert [row["id"] for row in rows] == [f"{place:06d}.png" for place in range(25)]
    assert not (tmp_path / "all.errors.jsonl").exists()


def test_one_file_of_arrays(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 25, bad=10)
    (images / "000011.png").rename(images / "000011 with a longer name.png")
    folder = finished(tmp_path / "job", bundle_path, images, "npy")
    finish(folder, into=tmp_path / "all.npz")
    finish(folder, into=tmp_path / "all.npy")
    mean = np.concatenate([np.load(folder.part(number))["mean"] for number in range(3)])
    with np.load(tmp_path / "all.npz", allow_pickle=False) as merged:
        assert set(merged.files) == {"ids", "mean", "variance", "kl"}
        np.testing.assert_array_equal(merged["mean"], mean)
        assert merged["kl"].shape == (23,)
        assert "000011 with a longer name.png" in merged["ids"]
        ids = merged["ids"].tolist()
    np.testing.assert_array_equal(np.load(tmp_path / "all.npy", allow_pickle=False), mean)
    assert [json.loads(line) for line in (tmp_path / "all.ids.jsonl").read_text().splitlines()] == ids


def test_a_suffix_that_does_not_fit_is_refused(tmp_path: Path, bundle_path: Path) -> None:
    folder = finished(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 3), "npy")
    with pytest.raises(JobError, match=r"all.parquet: the parts are npy; name a file that ends with .npz or .npy"):
        finish(folder, into=tmp_path / "all.parquet")
