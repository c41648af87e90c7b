"""The plan of a job: made once, streamed, and followed whatever happens to the inputs."""

from __future__ import annotations

import contextlib
import resource
import shutil
import threading
from pathlib import Path

import pytest

from isolatent_serve.jobs import JobError, JobFolder, JobSpec, create
from isolatent_serve.jobs.plan import Stopped, inputs_of, plan
from isolatent_serve.jobs.sources import Input, Locator
from jobs_core_support import job, pictures


def test_every_input_has_one_place(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 25))
    names = [each.id for number in range(folder.shards) for each in inputs_of(folder, number)]
    assert names == [f"{place:06d}.png" for place in range(25)]
    assert [folder.size(number) for number in range(folder.shards)] == [10, 10, 5]


@pytest.mark.parametrize(
    ("count", "size"), [(1, 64), (64, 64), (2048, 64), (2049, 65), (4899, 154), (32_768, 1024), (100_000, 1024)]
)
def test_small_jobs_have_small_parts_that_many_processes_share(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    listed = (Input(f"{place}.png", Locator("file", f"/{place}.png")) for place in range(count))
    monkeypatch.setattr("isolatent_serve.jobs.plan.list_inputs", lambda *_, **__: listed)
    folder = create(JobSpec(model=bundle_path, inputs=(str(tmp_path),)), tmp_path / "job")
    plan(folder)
    assert (folder.plan.shard_items, folder.plan.total) == (size, count)
    assert sum(folder.size(number) for number in range(folder.shards)) == count


def test_a_plan_is_followed_when_the_inputs_change(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 12)
    job(tmp_path / "job", bundle_path, images)
    (images / "000003.png").unlink()
    shutil.copy(images / "000000.png", images / "later.png")
    assert [each.id for each in inputs_of(job(tmp_path / "job", bundle_path, images), 0)][3] == "000003.png"


def test_an_interrupted_plan_is_made_again(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 25)
    spec = JobSpec(model=bundle_path, inputs=(str(images),), shard_items=10)
    folder, stop = create(spec, tmp_path / "job"), threading.Event()
    with pytest.raises(Stopped):
        plan(folder, on_listed=lambda count: stop.set() if count == 20 else None, stop=stop)
    assert not folder.planned
    with pytest.raises(JobError, match="not planned yet"):
        folder.todo()
    plan(folder)
    assert JobFolder(folder.path).plan.total == 25


def test_files_of_other_kinds_are_counted(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 3)
    (images / "notes.md").write_text("no picture")
    assert sum(job(tmp_path / "job", bundle_path, images).plan.skipped.values()) == 1


def test_equal_ids_are_refused(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 12)
    spec = JobSpec(model=bundle_path, inputs=(str(images), str(images / "000003.png")))
    with pytest.raises(JobError, match=r"'000003.png' .numbers 3 and 12.*name each input once"):
        plan(create(spec, tmp_path / "job"))


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda _: None])
def test_a_job_without_inputs_is_refused(tmp_path: Path, bundle_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "empty")
    with pytest.raises(JobError, match="empty"):
        job(tmp_path / "job", bundle_path, tmp_path / "empty")


def test_a_damaged_plan_is_noticed(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 12))
    file = folder.inputs_file(0)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(JobError, match="not the plan that was written"):
        inputs_of(folder, 0)


def test_consistency_is_refused_before_anything_is_listed(tmp_path: Path, cloud_bundle_path: Path) -> None:
    spec = JobSpec(model=cloud_bundle_path, inputs=("nowhere",), outputs=("consistency",))
    with pytest.raises(JobError, match="leave out consistency"):
        create(spec, tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_a_plan_that_another_process_made_meanwhile_is_kept(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create(JobSpec(model=bundle_path, inputs=(str(pictures(tmp_path / "images", 3)),)), tmp_path / "job")
    locked = JobFolder.locked

    def late(self: JobFolder) -> contextlib.AbstractContextManager[None]:
        monkeypatch.setattr(JobFolder, "locked", locked)
        plan(JobFolder(self.path))
        shutil.rmtree(tmp_path / "images")
        return locked(self)

    monkeypatch.setattr(JobFolder, "locked", late)
    plan(folder)
    assert folder.plan.total == 3


def test_a_disk_that_is_full_ends_the_plan_with_the_remedy(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = (Input(f"{place:0200}.png", Locator("file", "/x.png")) for place in range(3000))
    monkeypatch.setattr("isolatent_serve.jobs.plan.list_inputs", lambda *_, **__: listed)
    folder = create(JobSpec(model=bundle_path, inputs=(str(tmp_path),)), tmp_path / "job")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        with pytest.raises(JobError, match=r"cannot be written .*make room"):
            plan(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
