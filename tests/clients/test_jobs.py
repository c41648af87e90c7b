"""client.jobs and client.files against a real service that does jobs."""

from __future__ import annotations

import shutil
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isolatent import (
    BadRequestError,
    Client,
    ConflictError,
    InputError,
    Job,
    JobCancelled,
    JobError,
    JobFailed,
    NotFoundError,
    UnsupportedError,
    _jobs_wire,
)

OUTPUTS = ("embedding", "reconstruction_error", "consistency")


@pytest.fixture(scope="module")
def client(jobs_url: str) -> Iterator[Client]:
    with Client(jobs_url) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures 0.png to 4.png in two folders, one file that is none, and hidden ones."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(5).integers(0, 256, (5, 16, 16), np.uint8)
    for index, picture in enumerate(pixels):
        path = folder / ("even" if index % 2 == 0 else "odd") / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
    (folder / "odd" / "bad.png").write_text("no picture")
    (folder / ".hidden.png").write_text("nobody looks here")
    return folder


@pytest.fixture(scope="module")
def job(client: Client, folder: Path) -> Job:
    """A job over the folder that has succeeded."""
    return client.jobs.create(folder, outputs=OUTPUTS, samples=3, metadata={"for": "tests"}).wait(60)


def test_a_folder_is_uploaded_and_every_input_has_a_row_or_an_error(job: Job, folder: Path, client: Client) -> None:
    rows = {row.id: row for row in job.results()}
    names = ["even/0.png", "even/2.png", "even/4.png", "odd/1.png", "odd/3.png"]
    assert sorted(rows) == names
    expected = client.posteriors([folder / name for name in names])
    for name, posterior in zip(names, expected, strict=True):
        np.testing.assert_allclose(rows[name].posterior.mean, posterior.mean, atol=1e-5)
        np.testing.assert_allclose(rows[name].posterior.variance, posterior.variance, rtol=1e-4)
        assert rows[name].posterior.kl == pytest.approx(posterior.kl, rel=1e-4)
        assert (rows[name].posterior.model, rows[name].posterior.version) == ("tiny", "1")
    (error,) = job.errors()
    assert (error.id, error.code) == ("odd/bad.png", "undecodable")
    assert "not an image" in str(error)


def test_a_job_tells_what_it_is(job: Job) -> None:
    assert (job.state, job.model, job.version, job.format) == ("succeeded", "tiny", "1", "parquet")
    assert (job.counts.total, job.counts.succeeded, job.counts.failed) == (6, 5, 1)
    assert job.outputs == ("posterior", *OUTPUTS)
    assert job.metadata == {"for": "tests"}
    assert job.input["file"].startswith("file-")
    assert job.created_at
    assert job.started_at
    assert job.finished_at
    assert job.expires_at
    assert job.created_at <= job.started_at <= job.finished_at < job.expires_at
    assert repr(job) == f"<Job {job.id} succeeded: 6 of 6 done, 1 failed>"


def test_what_is_asked_for_is_in_the_rows(job: Job) -> None:
    for row in job.results():
        assert row.embedding is not None
        assert row.consistency is not None
        assert row.reconstruction_error is not None
        assert np.array_equal(row.embedding, row.posterior.mean)
        assert row.consistency.shape == (2,)
        assert row.reconstruction_error > 0


def test_a_table_has_a_column_for_each_output(job: Job) -> None:
    table = job.table()
    columns = ["id", "mean", "variance", "kl", "embedding", "reconstruction_error"]
    assert table.column_names == [*columns, "consistency_kl", "consistency_normalized"]
    assert table["id"].to_pylist() == [row.id for row in job.results()]
    assert table["mean"].type.list_size == 8


def test_json_lines_are_the_same_rows_and_need_no_pyarrow(
    client: Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = client.jobs.create(job.input["file"], format="jsonl", outputs=OUTPUTS, samples=3).wait(60)
    expected, table = {row.id: row for row in job.results()}, other.table()
    assert table["id"].to_pylist() == list(expected)
    assert table.schema.field("mean").type == job.table().schema.field("mean").type
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    rows = list(other.results())
    assert len(rows) == 5
    assert all(row.posterior == expected[row.id].posterior for row in rows)  # bit for bit
    for ask in (other.table, job.results, job.table):
        with pytest.raises(UnsupportedError, match="pip install pyarrow"):
            ask()


def test_a_download_brings_whole_parts_and_the_second_one_nothing(job: Job, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    (path,) = job.download(tmp_path / "new", progress=lambda done, total: seen.append((done, total)))
    assert path.name == "part-000000.parquet"
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    before = path.stat().st_mtime_ns
    assert job.download(tmp_path / "new") == [path]
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # a damaged one is brought again
    job.download(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == [path]
    assert path.read_bytes().endswith(b"PAR1")


def test_a_download_that_broke_off_is_taken_up(job: Job, tmp_path: Path) -> None:
    (whole,) = job.download(tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "_part-000000.parquet.unfinished").write_bytes(whole.read_bytes()[:1000])
    seen: list[int] = []
    (path,) = job.download(tmp_path / "two", progress=lambda done, _: seen.append(done))
    assert path.read_bytes() == whole.read_bytes()
    assert seen[0] == 1000


def test_jobs_are_found_again_and_listed_newest_first(
    client: Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.jobs.get(job.id).counts == job.counts
    monkeypatch.setattr(_jobs_wire, "PAGE", 1)
    again = client.jobs.create(job.input["file"]).wait(60)
    found = [each.id for each in client.jobs.list(state="succeeded")]
    assert found[0] == again.id
    assert job.id in found
    assert again.id not in [each.id for each in client.jobs.list(state="failed")]
    again.delete()
    with pytest.raises(NotFoundError):
        again.refresh()


def test_a_key_of_ones_own_makes_one_job_of_two_calls(client: Client, folder: Path, tmp_path: Path) -> None:
    first = client.jobs.create(folder, idempotency_key="nightly")
    copy = shutil.copytree(folder, tmp_path / folder.name)
    assert client.jobs.create(copy, idempotency_key="nightly").id == first.id
    with pytest.raises(ConflictError) as caught:
        client.jobs.create(folder, format="jsonl", idempotency_key="nightly")
    assert caught.value.code == "idempotency_conflict"
    other = client.jobs.create(folder)
    assert other.id != first.id
    for each in (first, other):  # nobody wants to wait for them
        each.cancel()


def test_results_wait_for_the_end_and_a_cancelled_job_says_so(client: Client, job: Job) -> None:
    ahead, job = client.jobs.create(job.input["file"]), client.jobs.create(job.input["file"])
    with pytest.raises(JobError, match=r"wait\(\) for it first, or pass partial=True"):
        job.results()
    assert list(job.results(partial=True)) == []
    assert job.cancel().is_over or job.state == "cancelling"
    with pytest.raises(JobCancelled) as caught:
        job.wait(60)
    assert (caught.value.job_id, caught.value.state) == (job.id, "cancelled")
    with pytest.raises(JobCancelled):
        job.table()
    assert ahead.wait(60).counts.succeeded == 5


def test_a_job_that_cannot_be_done_says_why(client: Client, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("notes.md", "no inputs")
    with pytest.raises(JobFailed, match="no inputs") as caught:
        client.jobs.create(tmp_path / "notes.zip").wait(60)
    assert (caught.value.state, caught.value.succeeded) == ("failed", 0)
    assert caught.value.code


def test_files_are_kept_listed_and_deleted(client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int | None]] = []
    stored = client.files.upload(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (stored.bytes, stored.bytes)
    assert stored.filename == f"{folder.name}.zip"
    assert client.files.get(stored.id) == stored
    assert client.files.upload(folder).sha256 == stored.sha256  # the same files are the same archive
    monkeypatch.setattr(_jobs_wire, "PAGE", 1)
    assert stored in list(client.files.list())
    client.files.delete(stored.id)
    with pytest.raises(NotFoundError):
        client.files.get(stored.id)


def test_a_refused_job_leaves_no_file_behind(client: Client, folder: Path) -> None:
    before = {file.id for file in client.files.list()}
    with pytest.raises(NotFoundError, match="model_not_found"):
        client.jobs.create(folder, "huge")
    assert {file.id for file in client.files.list()} == before


def test_an_upload_takes_no_memory(client: Client, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("large.png")
    entry.size = 64 * 2**20
    with (tmp_path / "large.tar").open("wb") as file:
        file.write(entry.tobuf())
        file.truncate(entry.size + 10240)
    tracemalloc.start()
    try:
        stored = client.files.upload(tmp_path / "large.tar")
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
    assert stored.bytes > 64 * 2**20
    client.files.delete(stored.id)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing", "no file or folder"),
        ("even/0.png", "is nothing that a job reads; allowed are a folder"),
        ("empty", "has no files"),
    ],
)
def test_what_cannot_be_uploaded_is_an_input_error(given: str, message: str, folder: Path, client: Client) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message):
        client.jobs.create(folder / given)


def test_no_samples_at_all_are_refused_by_the_service(client: Client, job: Job) -> None:
    with pytest.raises(BadRequestError, match="samples: Input should be"):
        client.jobs.create(job.input["file"], outputs=["consistency"], samples=0)


def test_torchserve_has_no_jobs(folder: Path) -> None:
    with Client("http://127.0.0.1:1", backend="torchserve") as client:
        with pytest.raises(UnsupportedError, match="isolatent serve"):
            client.jobs.get("job-" + 32 * "0")
        with pytest.raises(UnsupportedError, match="isolatent serve"):
            client.jobs.create(folder)


def test_a_service_without_jobs_says_how_to_turn_them_on(service_url: str, folder: Path) -> None:
    with Client(service_url) as client, pytest.raises(Exception, match="--jobs") as caught:
        client.jobs.create(folder)
    assert caught.value.status == 501  # type: ignore[attr-defined]
