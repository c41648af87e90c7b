"""Who runs jobs: at most one, as long as it takes, and nothing is lost or done twice whatever ends in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest

from isolatent_export import Bundle
from isolatent_export.bundle import MANIFEST, file_digest
from isolatent_serve import JobSettings, RequestLimits
from isolatent_serve.jobs import JobFolder, JobSpec, child, prepare, retention
from isolatent_serve.jobs.rows import FileRow, JobRow
from isolatent_serve.jobs.runner import Runner
from isolatent_serve.jobs.store import Store, open_store
from isolatent_serve.metrics import Metrics
from jobs_api_support import create, errors, parts_on_disk, pictures, rows, upload, wait
from jobs_core_support import pictures as pictures_in
from serve_support import all_gone, descendants
from soak_support import Running, lasting, until

PICTURES = 2100  # three parts


def computing(pid: int) -> list[int]:
    """The processes of jobs below the service `pid`."""
    found = []
    for process in descendants(pid):
        with contextlib.suppress(OSError):
            if b"isolatent_serve.jobs\0" in Path(f"/proc/{process}/cmdline").read_bytes():
                found.append(process)
    return found


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Pictures for three parts, two of them broken."""
    return pictures(PICTURES, bad=(7, 1777))


@contextlib.contextmanager
def service(folder: Path, bundle_path: Path, *more: str) -> Iterator[tuple[Running, httpx2.Client]]:
    """A service with its jobs below `folder`, and a client of it."""
    with (
        lasting(folder / "log", bundle_path, "--jobs", folder / "jobs", "--job-processes", "1", *more) as running,
        httpx2.Client(base_url=running.url, timeout=60) as client,
    ):
        yield running, client


def gives_way(processes: list[int]) -> bool:
    """Whether there are any, and they take only the time that nobody else wants."""
    return bool(processes) and all(os.sched_getscheduler(process) == os.SCHED_IDLE for process in processes)


def part_names(client: httpx2.Client, job: str) -> list[str]:
    return [part["href"] for part in client.get(f"/v1/jobs/{job}/results").json()["data"]]


@pytest.mark.timeout(600)
def test_a_job_outlives_its_process_and_the_whole_service(
    tmp_path: Path, bundle_path: Path, files: dict[str, bytes]
) -> None:
    with service(tmp_path, bundle_path) as (running, client):
        job = create(client, {"input": upload(client, files)})["id"]
        until(lambda: bool(computing(running.pid)), "the job is computed", 60)
        os.kill(computing(running.pid)[0], signal.SIGKILL)
        until(lambda: len(part_names(client, job)) > 0, "a part is done", 200)
        done = {
            name: (tmp_path / "jobs" / "jobs" / job / name).stat() for name in parts_on_disk(tmp_path / "jobs", job)
        }
        below = descendants(running.pid)
        running.process.kill()
        assert all_gone(below, 20)
    with service(tmp_path, bundle_path) as (running, client):
        until(lambda: gives_way(computing(running.pid)), "the job goes on", 60)
        running.end(30)
    with contextlib.closing(open_store(JobSettings(directory=tmp_path / "jobs"))) as store:
        assert store.state(job) in ("queued", "succeeded")
    with service(tmp_path, bundle_path) as (running, client):
        over = wait(client, job, seconds=300)
        assert over["counts"] == {"total": PICTURES, "succeeded": PICTURES - 2, "failed": 2}
        assert sorted(rows(client, job)) == sorted(name for name in files if files[name] != b"no picture")
        assert [error["index"] for error in errors(client, job)] == [7, 1777]
        for name, before in done.items():
            after = (tmp_path / "jobs" / "jobs" / job / name).stat()
            assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        again = create(client, {"input": over["input"]})["id"]
        assert wait(client, again, seconds=300)["state"] == "succeeded"
        assert parts_on_disk(tmp_path / "jobs", again) == parts_on_disk(tmp_path / "jobs", job)


@pytest.mark.timeout(400)
def test_of_several_workers_one_runs_and_another_goes_on(
    tmp_path: Path, bundle_path: Path, files: dict[str, bytes]
) -> None:
    with service(tmp_path, bundle_path, "--workers", "2") as (running, client):
        job = create(client, {"input": upload(client, files)})["id"]
        until(lambda: bool(computing(running.pid)), "the job is computed", 60)
        (worker,) = [pid for pid in descendants(running.pid) if computing(running.pid)[0] in descendants(pid)][:1]
        os.kill(worker, signal.SIGKILL)
        until(lambda: answers(client, job)["state"] == "succeeded", "another one goes on", 60)
        assert answers(client, job)["counts"]["succeeded"] == PICTURES - 2
        until(lambda: 'isolatent_jobs{state="succeeded"} 1.0' in client.get("/metrics").text, "metrics tell it")


def answers(client: httpx2.Client, job: str) -> dict[str, Any]:
    """The job, though a worker may be lost with the connection to it."""
    for _ in range(20):
        with contextlib.suppress(httpx2.TransportError):
            found: dict[str, Any] = client.get(f"/v1/jobs/{job}").json()
            return found
        time.sleep(0.1)
    raise AssertionError("no answer")


@pytest.mark.timeout(300)
def test_a_cancelled_job_keeps_its_finished_parts(tmp_path: Path, bundle_path: Path, files: dict[str, bytes]) -> None:
    with service(tmp_path, bundle_path) as (running, client):
        job = create(client, {"input": upload(client, files)})["id"]
        until(lambda: len(part_names(client, job)) > 0, "a part is done", 200)
        client.post(f"/v1/jobs/{job}/cancel")
        over = wait(client, job)
        assert over["state"] in ("cancelled", "succeeded")  # it may have been done before
        assert len(rows(client, job)) == over["counts"]["succeeded"] > 0
        until(lambda: not computing(running.pid), "its process is gone")


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    return JobSettings(directory=tmp_path / "jobs", inputs=(tmp_path,), processes=1)


@pytest.fixture
def store(settings: JobSettings) -> Iterator[Store]:
    with contextlib.closing(open_store(settings)) as store:
        yield store


@contextlib.contextmanager
def working(settings: JobSettings, store: Store) -> Iterator[Runner]:
    runner = Runner(settings, RequestLimits(), store, Metrics())
    runner.start()
    try:
        yield runner
    finally:
        runner.stop()
        runner.join()


def row(bundle: Path, source: Path) -> JobRow:
    """A job for the bundle as it is now."""
    manifest = Bundle.open(bundle).manifest
    return JobRow(
        id="job-" + "1" * 32,
        owner="",
        model=manifest.name,
        version=manifest.version,
        bundle=str(bundle),
        digest=file_digest(bundle / MANIFEST),
        input={"path": source.name},
        source=str(source),
        outputs=("posterior",),
        format="parquet",
        samples=5,
        created=time.time(),
    )


def failure(settings: JobSettings, store: Store, job: JobRow) -> dict[str, str]:
    """The error of a job that fails."""
    store.add_job(job, 9)
    with working(settings, store):
        until(lambda: store.state(job.id) == "failed", "it fails", 60)
    found = store.job("", job.id)
    assert found
    assert found.error
    return found.error


def test_a_model_that_is_gone_fails_the_job(
    tmp_path: Path, bundle_path: Path, settings: JobSettings, store: Store
) -> None:
    copy = Path(shutil.copytree(bundle_path, tmp_path / "models" / "tiny"))
    job = row(copy, tmp_path / "images")
    shutil.rmtree(copy)
    error = failure(settings, store, job)
    assert error["code"] == "model_gone"
    assert str(tmp_path) not in error["detail"]


def test_a_model_that_has_changed_fails_the_job(
    tmp_path: Path, bundle_path: Path, settings: JobSettings, store: Store
) -> None:
    error = failure(settings, store, replace(row(bundle_path, tmp_path / "images"), digest="0" * 64))
    assert error["code"] == "model_gone"
    assert "not tiny 1 any more" in error["detail"]


@pytest.mark.timeout(200)
def test_inputs_that_are_none_fail_the_job(
    tmp_path: Path, bundle_path: Path, settings: JobSettings, store: Store
) -> None:
    (tmp_path / "images").mkdir()
    error = failure(settings, store, row(bundle_path, tmp_path / "images"))
    assert error["code"] == "not_possible"
    assert error["detail"].startswith("images: no inputs in it")


def test_words_of_clients_do_not_make_a_job_wait(
    tmp_path: Path, bundle_path: Path, settings: JobSettings, store: Store
) -> None:
    error = failure(settings, store, row(bundle_path, tmp_path / "works on this job"))
    assert (error["code"], error["detail"].split(":")[0]) == ("not_possible", "works on this job")


def test_a_job_that_another_process_works_on_waits_and_others_do_not(
    tmp_path: Path, bundle_path: Path, settings: JobSettings, store: Store
) -> None:
    held, free = row(bundle_path, tmp_path), replace(row(bundle_path, tmp_path / "gone"), id="job-" + "2" * 32)
    store.add_job(held, 9)
    store.claim()
    store.requeue(held.id)
    store.add_job(free, 9)
    path = settings.directory / "jobs" / held.id
    prepare(JobSpec(model=bundle_path, inputs=(str(pictures_in(tmp_path / "images", 3)),)), path)
    with JobFolder(path).locked(), working(settings, store):
        until(lambda: store.state(free.id) == "failed", "the other one is over", 20)
        until(lambda: store.state(held.id) == "queued", "this one waits")


def test_a_process_that_dies_again_and_again_fails_the_job(
    tmp_path: Path, bundle_path: Path, settings: JobSettings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "COMMAND", ("-c", "import os; os.abort()"))
    error = failure(settings, store, row(bundle_path, tmp_path))
    assert error["code"] == "crashed"


def test_a_process_that_does_not_end_is_killed(
    tmp_path: Path, bundle_path: Path, settings: JobSettings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); time.sleep(99)"
    )
    monkeypatch.setattr(child, "COMMAND", ("-c", stubborn))
    job = row(bundle_path, tmp_path)
    store.add_job(job, 9)
    with working(settings, store):
        until(lambda: store.state(job.id) == "running", "it runs")
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert store.state(job.id) == "queued"


def test_what_has_expired_or_strayed_is_deleted(tmp_path: Path, bundle_path: Path, settings: JobSettings) -> None:
    with contextlib.closing(open_store(settings.model_copy(update={"retention_days": 1e-9}))) as store:
        old = FileRow(
            id="file-1", owner="", filename="a", suffix=".zip", bytes=1, sha256="0", created=1, expires=time.time() - 1
        )
        new = replace(old, id="file-2", expires=time.time() + 99)
        job = row(bundle_path, tmp_path)
        store.add_file(old, 99)
        store.add_file(new, 99)
        store.add_job(job, 9)
        store.finish(job.id, "succeeded")
        files, jobs = settings.directory / "files", settings.directory / "jobs"
        for name in ("file-1.zip", "file-2.zip", "file-3.zip", "file-4.unfinished", "file-5.unfinished"):
            (files / name).touch()
        for name in ("file-3.zip", "file-4.unfinished"):
            os.utime(files / name, (1, 1))
        (jobs / job.id / "_errors").mkdir(parents=True)
        time.sleep(0.01)
        retention.sweep(settings.directory, store)
        assert sorted(path.name for path in files.iterdir()) == ["file-2.zip", "file-5.unfinished"]
        assert list(jobs.iterdir()) == []
        assert store.identities() == {"file-2"}


@pytest.mark.parametrize("end", ["failed", "cancelled", None])
def test_what_a_job_unpacked_is_deleted_once_it_is_over(
    tmp_path: Path, bundle_path: Path, settings: JobSettings, store: Store, end: Literal["failed", "cancelled"] | None
) -> None:
    job = row(bundle_path, tmp_path)
    store.add_job(job, 9)
    folder = settings.directory / "jobs" / job.id
    for name in ("_unpacked", "_plan.unfinished"):
        (folder / name).mkdir(parents=True)
        (folder / name / "000000.tar").touch()
    (folder / "part-000000.parquet").touch()
    if end:
        store.finish(job.id, end)
    retention.sweep(settings.directory, store)
    left = [] if end else ["_plan.unfinished", "_unpacked"]
    assert sorted(path.name for path in folder.iterdir()) == [*left, "part-000000.parquet"]
