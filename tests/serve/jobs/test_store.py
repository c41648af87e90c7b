"""The database of files and jobs: who sees what, what waits for whom, and what outlives an end in the middle."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from isolatent_serve.jobs.rows import FileRow, JobRow
from isolatent_serve.jobs.store import (
    ConflictError,
    FullError,
    GoneError,
    InUseError,
    NotOverError,
    Store,
    StoreError,
)

FILE = FileRow(
    id="file-1", owner="alice", filename="a.zip", suffix=".zip", bytes=10, sha256="0", created=1, expires=2**40
)
JOB = JobRow(
    id="job-1",
    owner="alice",
    model="tiny",
    version="1",
    bundle="/models/tiny",
    digest="0",
    input={"path": "x"},
    source="/inputs/x",
    outputs=("posterior", "embedding"),
    format="parquet",
    samples=5,
    metadata={"project": "ä"},
    created=1,
    request="r",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(path, retention=60)) as store:
        yield store


def job(number: int, **changes: object) -> JobRow:
    return replace(JOB, id=f"job-{number}", **changes)  # type: ignore[arg-type]


def test_what_is_added_is_read_back(store: Store, path: Path) -> None:
    store.add_file(FILE, 100)
    made, is_new = store.add_job(replace(JOB, file="file-1"), 9)
    assert is_new
    again = Store(path, retention=60)
    assert again.file("alice", "file-1") == replace(FILE, number=1)
    assert again.job("alice", "job-1") == made == replace(JOB, file="file-1", number=1)


def test_others_see_nothing_of_it(store: Store) -> None:
    store.add_file(FILE, 100)
    store.add_job(JOB, 9)
    assert store.file("bob", "file-1") is None
    assert store.files("bob", 9) == store.jobs("bob", 9) == []
    assert store.job("bob", "job-1") is store.cancel("bob", "job-1") is store.remove_job("bob", "job-1") is None
    assert store.remove_file("bob", "file-1") is None
    assert store.file("alice", "file-1")
    with pytest.raises(GoneError):
        store.add_job(job(2, owner="bob", file="file-1"), 9)


def test_pages_go_from_the_newest_to_the_oldest(store: Store) -> None:
    for number in range(5):
        store.add_job(job(number), 9)
    first = store.jobs("alice", 2)
    second = store.jobs("alice", 9, first[-1].number)
    assert [row.id for row in (*first, *second)] == ["job-4", "job-3", "job-2", "job-1", "job-0"]
    store.claim()
    assert [row.id for row in store.jobs("alice", 9, state="running")] == ["job-0"]


def test_one_idempotency_key_is_one_job_however_many_ask_at_once(path: Path) -> None:
    ids = []

    def ask(number: int) -> None:
        mine = Store(path, retention=60)
        ids.append(mine.add_job(job(number, key="k"), 9)[0].id)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_a_job_that_has_to_wait_lets_others_go_first(store: Store) -> None:
    store.add_job(job(1), 9)
    store.add_job(job(2), 9)
    store.claim()
    store.requeue("job-1")
    (second,) = [store.claim(but=["job-1", "job-9"])]
    assert second
    assert second.id == "job-2"
    assert store.claim(but=["job-1"]) is None
    first = store.claim()
    assert first
    assert first.id == "job-1"


def test_a_key_that_came_with_another_request_is_a_conflict(store: Store) -> None:
    store.add_job(job(1, key="k"), 9)
    with pytest.raises(ConflictError):
        store.add_job(job(2, key="k", request="other"), 9)
    assert store.add_job(job(3, key="k", owner="bob"), 9)[1]  # keys are each owner's own
    with pytest.raises(ConflictError):
        store.job_of_key("alice", "k", "other")


def test_jobs_and_bytes_are_bounded(store: Store) -> None:
    store.add_job(job(1), 1)
    with pytest.raises(FullError):
        store.add_job(job(2), 1)
    store.cancel("alice", "job-1")
    store.add_job(job(2), 1)
    store.add_file(FILE, 15)
    with pytest.raises(FullError):
        store.add_file(replace(FILE, id="file-2"), 15)


def test_a_file_stays_as_long_as_a_job_needs_it(store: Store) -> None:
    store.add_file(replace(FILE, expires=1), 100)
    store.add_job(replace(JOB, file="file-1"), 9)
    with pytest.raises(InUseError, match="job-1"):
        store.remove_file("alice", "file-1")
    assert store.expire() == ([], [])
    store.cancel("alice", "job-1")
    files, jobs = store.expire()
    assert [row.id for row in files] == ["file-1"]
    assert jobs == []


def test_jobs_run_in_the_order_in_which_they_came(store: Store) -> None:
    store.add_job(job(1), 9)
    store.add_job(job(2, owner="bob"), 9)
    claimed = [store.claim(), store.claim(), store.claim()]
    assert [row and (row.id, row.state) for row in claimed] == [("job-1", "running"), ("job-2", "running"), None]
    assert claimed[0]
    assert claimed[0].started


def test_owners_take_turns_and_what_was_interrupted_comes_first(store: Store) -> None:
    for number, owner in enumerate(["alice", "alice", "alice", "bob", "carol"]):
        store.add_job(job(number, owner=owner), 9)
    began = []
    for _ in range(5):
        claimed = store.claim()
        assert claimed
        store.requeue(claimed.id)
        again = store.claim()
        assert again
        assert again.id == claimed.id
        store.finish(claimed.id, "succeeded")
        began.append(claimed.id)
    assert began == ["job-0", "job-3", "job-4", "job-1", "job-2"]


def test_a_job_is_cancelled_at_once_or_when_its_process_has_ended(store: Store) -> None:
    store.add_job(job(1), 9)
    store.add_job(job(2), 9)
    store.claim()
    running, waiting = store.cancel("alice", "job-1"), store.cancel("alice", "job-2")
    assert running
    assert waiting
    assert (running.state, running.expires) == ("cancelling", None)
    assert (waiting.state, waiting.is_over) == ("cancelled", True)
    with pytest.raises(NotOverError, match="cancelling"):
        store.remove_job("alice", "job-1")
    store.requeue("job-1")
    assert store.state("job-1") == "cancelled"
    assert store.remove_job("alice", "job-1")
    assert store.job("alice", "job-1") is None


def test_what_ran_when_the_service_ended_waits_again(store: Store, path: Path) -> None:
    for number in range(3):
        store.add_job(job(number), 9)
    store.claim()
    store.claim()
    store.progress("job-0", 100, 60, 4)
    store.cancel("alice", "job-1")
    again = Store(path, retention=60)
    assert again.recover() == 1
    assert again.counts() == {
        "queued": 2,
        "running": 0,
        "cancelling": 0,
        "succeeded": 0,
        "failed": 0,
        "cancelled": 1,
    }
    first = again.claim()
    assert first
    assert (first.id, first.total, first.succeeded, first.failed) == ("job-0", 100, 60, 4)


def test_what_is_over_expires(path: Path) -> None:
    store = Store(path, retention=-1)
    for number in range(2):
        store.add_job(job(number), 9)
    store.claim()
    store.finish("job-0", "failed", {"code": "crashed", "detail": "again and again"})
    found = store.job("alice", "job-0")
    assert found
    assert found.error == {"code": "crashed", "detail": "again and again"}
    assert [row.id for row in store.expire()[1]] == ["job-0"]
    assert store.identities() == {"job-1"}


def test_a_database_of_a_newer_release_is_left_alone(store: Store, path: Path) -> None:
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer isolatent"):
        Store(path, retention=60)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="not a database; give a directory"):
        Store(path, retention=60)
