"""The folder of a job: resumed when it is the same, refused when not, and one run at a time."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from isolatent_serve.jobs import Counts, Encoder, JobError, JobFolder, run_shard
from isolatent_serve.jobs.folder import BusyError, remove, written
from jobs_core_support import job, pictures


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """25 pictures, two of them broken: three shards."""
    return pictures(tmp_path / "images", 25, bad=10)


def test_what_is_done_is_what_is_on_the_disk(tmp_path: Path, bundle_path: Path, images: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, images)
    assert (folder.todo(), folder.counts()) == ([0, 1, 2], Counts(25, 0, 0))
    encoder = Encoder(folder.spec)
    run_shard(folder, 1, encoder)
    run_shard(folder, 2, encoder)
    assert (folder.todo(), folder.counts()) == ([0], Counts(25, 14, 1))
    assert JobFolder(folder.path).counts_of(2) == Counts(5, 5, 0)


def test_the_same_job_is_resumed_and_another_one_refused_by_name(
    tmp_path: Path, bundle_path: Path, images: Path
) -> None:
    folder = job(tmp_path / "job", bundle_path, images)
    run_shard(folder, 0, Encoder(folder.spec))
    assert job(tmp_path / "job", bundle_path, images).todo() == [1, 2]
    with pytest.raises(JobError, match=r"other batch_items and outputs \(batch_items was 4, is 8\).*--fresh"):
        job(tmp_path / "job", bundle_path, images, batch_items=8, outputs=("embedding",))


def test_another_model_is_another_job(
    tmp_path: Path, bundle_path: Path, colour_bundle_path: Path, images: Path
) -> None:
    job(tmp_path / "job", bundle_path, images)
    with pytest.raises(JobError, match="other model"):
        job(tmp_path / "job", colour_bundle_path, images)


def test_a_folder_with_other_things_is_left_alone(bundle_path: Path, images: Path) -> None:
    with pytest.raises(JobError, match=r"not empty \(000000.png\) and no job"):
        job(images, bundle_path, images)
    with pytest.raises(JobError, match="no job"):
        remove(images)
    assert len(list(images.glob("*.png"))) == 25


def test_one_run_at_a_time_and_the_other_one_is_named(tmp_path: Path, bundle_path: Path, images: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, images)
    with folder.locked():
        for work in (lambda: job(folder.path, bundle_path, images), lambda: remove(folder.path)):
            with pytest.raises(BusyError, match=r"process \d+ on .* works on this job"):
                work()
    remove(folder.path)
    assert not folder.path.exists()


def test_a_damaged_job_says_where(tmp_path: Path, bundle_path: Path, images: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, images)
    facts: dict[str, Any] = json.loads((folder.path / "_job.json").read_text())
    facts["spec"]["batch_items"] = -1
    (folder.path / "_job.json").write_text(json.dumps(facts))
    with pytest.raises(JobError, match=r"_job.json: spec.batch_items: .*begin again"):
        JobFolder(folder.path)


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "part-000000.parquet"
    with contextlib.suppress(KeyboardInterrupt), written(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert not path.exists()
    assert all(entry.name.startswith("_") for entry in tmp_path.iterdir())  # readers of datasets pass over it


def test_what_a_run_left_that_had_not_begun_is_no_hindrance(tmp_path: Path, bundle_path: Path, images: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "__job.json.unfinished").write_bytes(b"{")
    assert job(tmp_path / "job", bundle_path, images).todo() == [0, 1, 2]
