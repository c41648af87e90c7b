"""The local engine: real processes, killed, crashing, hanging and stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from isolatent_serve.jobs import Counts, Encoder, JobError, JobFolder, local, run_shard
from isolatent_serve.jobs.folder import Progress
from jobs_core_support import failures, job, pictures, results
from serve_support import all_gone, children

FAULTY = """
import os, signal
from isolatent_serve.jobs import shard, worker

read = shard.decode_item

def faulty(data, *arguments):
    if data == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while data == b"hang":
        pass
    if data == b"kill once" and not os.path.exists(MARK):
        open(MARK, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return read(data, *arguments)

shard.decode_item = faulty
worker.main()
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes have a reader with faults."""
    code = f"MARK = {str(tmp_path / 'mark')!r}\n{FAULTY}"
    monkeypatch.setattr(local, "_COMMAND", [sys.executable, "-c", code])


def test_processes_do_what_one_process_does(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 35, bad=10)
    alone, together = (job(tmp_path / name, bundle_path, images) for name in ("alone", "together"))
    encoder = Encoder(alone.spec)
    for number in alone.todo():
        run_shard(alone, number, encoder)
    heard: list[Progress] = []
    assert local.run(together, 2, heard.append) == Counts(35, 32, 3)
    assert results(together) == results(alone)
    assert (heard[0].done, heard[-1].done, heard[-1].shards) == (0, 4, 4)
    assert heard[-1].counts == Counts(35, 32, 3)


def test_only_what_is_left_is_done(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 25))
    run_shard(folder, 1, Encoder(folder.spec))
    before = folder.part(1).stat()
    assert local.run(folder, 1) == Counts(25, 25, 0)
    assert folder.part(1).stat().st_mtime_ns == before.st_mtime_ns
    assert local.run(folder, 1) == Counts(25, 25, 0)  # nothing to do


@pytest.mark.usefixtures("faulty")
def test_an_input_that_ends_its_process_is_blamed_and_nothing_else_is_lost(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 15)
    (images / "000002.png").write_bytes(b"crash")
    (images / "000012.png").write_bytes(b"hang")
    folder = job(tmp_path / "job", bundle_path, images, limits={"parse_seconds": 0.5})
    assert local.run(folder, 2) == Counts(15, 13, 2)
    assert [(each["id"], each["code"]) for each in failures(folder)] == [
        ("000002.png", "parser_crashed"),
        ("000012.png", "parser_timeout"),
    ]


@pytest.mark.usefixtures("faulty")
def test_an_input_is_not_blamed_for_a_process_that_was_killed(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 5)
    (images / "000002.png").write_bytes(b"kill once")
    folder = job(tmp_path / "job", bundle_path, images)
    local.run(folder, 1)
    assert [(each["id"], each["code"]) for each in failures(folder)] == [("000002.png", "undecodable")]


def test_killed_processes_are_replaced(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 60, bad=9)
    well, ill = (job(tmp_path / name, bundle_path, images) for name in ("well", "ill"))
    local.run(well, 1)
    killed: list[int] = []
    others = set(children(os.getpid()))  # of other tests

    def kill_one(progress: Progress) -> None:
        if progress.done > len(killed) and (alive := set(children(os.getpid())) - others):
            killed.append(alive.pop())
            os.kill(killed[-1], signal.SIGKILL)

    local.run(ill, 1, kill_one)
    assert killed
    assert results(ill) == results(well)


def test_a_stopped_job_keeps_what_is_done_and_goes_on(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 60))
    stop, seen, others = threading.Event(), set[int](), set(children(os.getpid()))

    def stop_soon(progress: Progress) -> None:
        seen.update(set(children(os.getpid())) - others)
        if progress.done >= 2:
            stop.set()

    counts = local.run(folder, 1, stop_soon, stop)
    assert 20 <= counts.succeeded < 60
    assert seen
    assert all_gone(list(seen))
    assert local.run(folder, 1) == Counts(60, 60, 0)


def test_a_process_that_cannot_begin_ends_the_job(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 3))
    monkeypatch.setattr(local, "_COMMAND", [sys.executable, "-c", "import os; os.abort()"])
    with pytest.raises(JobError, match=r"ended before it began, again \(signal 6\)"):
        local.run(folder, 1)


def test_results_that_cannot_be_written_end_the_job(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 3))
    (folder.path / "_part-000000.parquet.unfinished").mkdir()
    with pytest.raises(JobError, match=r"cannot be written .*make room, then run it again"):
        local.run(folder, 1)


def test_a_model_that_is_gone_ends_the_job(tmp_path: Path, bundle_path: Path) -> None:
    link = tmp_path / "model"
    link.symlink_to(bundle_path)
    folder = job(tmp_path / "job", link, pictures(tmp_path / "images", 3))
    link.unlink()
    with pytest.raises(JobError, match="model: no such directory"):
        local.run(folder, 1)


def test_two_runs_do_not_work_on_one_job(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 3))
    with folder.locked(), pytest.raises(JobError, match="works on this job"):
        local.run(JobFolder(folder.path), 1)
