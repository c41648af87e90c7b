"""The folder of a job: its specification, its plan, the parts that are done and the lock of who works on it.

    part-000000.parquet ...          results; a part that is there is whole, and its shard is done
    _errors/part-000000.jsonl ...    {"id", "index", "code", "detail"} of inputs that failed, where there are any
    _job.json                        what is to be done, with which model
    _plan/                           which input belongs to which part, listed once
    _listing.json, _errors.jsonl     at the end: parts with rows, bytes and sha256; all errors in one file
    _lock                            held by whoever works on the job
    _unpacked/                       archives that cannot be read in the middle, until the end

Readers of Parquet datasets pass over names that begin with an underscore.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from isolatent_serve.jobs.disk import sync
from isolatent_serve.jobs.spec import JobError, JobSpec

JOB = "_job.json"
PLAN = "_plan"
INDEX = "index.json"
ERRORS = "_errors"
ALL_ERRORS = "_errors.jsonl"
LISTING = "_listing.json"
LOCK = "_lock"
UNPACKED = "_unpacked"

SUFFIXES = {"parquet": ".parquet", "jsonl": ".jsonl", "npy": ".npz"}
"""Format -> suffix of its parts."""

UNFINISHED = ".unfinished"
"""Ends the name of a file that is being written."""

_BEGUN = f"_{JOB}{UNFINISHED}"
"""What is left of a job that ended before it had begun."""

_PART = re.compile(r"part-(\d{6,})")


class BusyError(JobError):
    """Another process works on the job."""


@dataclass(frozen=True)
class Counts:
    """Inputs of a job, or of one shard; those that are neither have not been looked at yet."""

    total: int
    succeeded: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.total + other.total, self.succeeded + other.succeeded, self.failed + other.failed)


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    counts: Counts
    done: int
    """Shards that are done."""
    shards: int
    under_way: int = 0
    """Inputs that were looked at, of shards that are not done: what an interruption would cost."""


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Facts):
    """The model of a job, and how its inputs are prepared."""

    name: str
    version: str
    digest: str
    """Hexadecimal sha256 of its manifest."""
    preprocessing: str
    """Hexadecimal sha256 of the input specification."""


class Job(_Facts):
    """The content of _job.json."""

    isolatent: str
    """Release that began it."""
    spec: JobSpec
    settled: dict[str, Any]
    """What another run must have in common with this one to go on with it."""
    model: Model


class Plan(_Facts):
    """The content of _plan/index.json, which is there when the plan is complete."""

    total: int
    shards: int
    shard_items: int
    """Inputs per shard; the last may have less."""
    skipped: dict[str, int] = {}
    """Reason -> number of files that were found and are no inputs."""


class JobFolder:
    """A job on disk. Everything is read from there: any number of processes may look at it while one works on it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises JobError when there is no job at `path`."""
        self.path = Path(path)
        self.job: Job = _read(self.path / JOB, Job, "no job; name the folder of one, or begin one with isolatent embed")
        self._plan: Plan | None = None
        self._failed: dict[int, int] = {}

    @property
    def spec(self) -> JobSpec:
        """What is to be done."""
        return self.job.spec

    @property
    def planned(self) -> bool:
        """Whether it is settled which inputs there are."""
        return self._plan is not None or (self.path / PLAN / INDEX).exists()

    @property
    def plan(self) -> Plan:
        """How many inputs and shards there are. Raises JobError while the plan is not complete."""
        if self._plan is None:
            self._plan = _read(self.path / PLAN / INDEX, Plan, "the job is not planned yet; run it again")
        return self._plan

    @property
    def shards(self) -> int:
        """Number of shards, and of parts at the end. Raises JobError while the plan is not complete."""
        return self.plan.shards

    def part(self, number: int) -> Path:
        """The results of a shard; the file is there when the shard is done."""
        return self.path / f"part-{number:06d}{SUFFIXES[self.spec.format]}"

    def errors(self, number: int) -> Path:
        """The errors of a shard; the file is there when there are any."""
        return self.path / ERRORS / f"part-{number:06d}.jsonl"

    def inputs_file(self, number: int) -> Path:
        """The planned inputs of a shard."""
        return self.path / PLAN / f"shard-{number:06d}.jsonl"

    @property
    def unpacked(self) -> Path:
        """Folder for archives that cannot be read in the middle before they are unpacked."""
        return self.path / UNPACKED

    def size(self, number: int) -> int:
        """Number of inputs of a shard."""
        return min(self.plan.shard_items, self.plan.total - self.first(number))

    def first(self, number: int) -> int:
        """Place in the job of a shard's first input."""
        return number * self.plan.shard_items

    def done(self) -> list[int]:
        """Numbers of the shards that are done, rising."""
        suffix = SUFFIXES[self.spec.format]
        names = (entry.name.removesuffix(suffix) for entry in os.scandir(self.path) if entry.name.endswith(suffix))
        return sorted(int(found[1]) for name in names if (found := _PART.fullmatch(name)))

    def todo(self) -> list[int]:
        """Numbers of the shards that are not, rising."""
        done = set(self.done())
        return [number for number in range(self.shards) if number not in done]

    def counts(self) -> Counts:
        """Inputs of the job: those of finished shards have succeeded or failed. Raises JobError before the plan."""
        found = Counts(0)
        for number in self.done():
            found += self.counts_of(number)
        return Counts(self.plan.total, found.succeeded, found.failed)

    def counts_of(self, number: int) -> Counts:
        """Inputs of a finished shard."""
        if number not in self._failed:
            self._failed[number] = _lines(self.errors(number))
        total, failed = self.size(number), self._failed[number]
        return Counts(total, total - failed, failed)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one that works on the job until the block ends. Raises BusyError naming the other one."""
        with _locked(self.path):
            yield


def begin(path: Path, job: Job) -> JobFolder:
    """A new job at `path`, or the one that is there when it is the same. Raises JobError naming what is different."""
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        if (path / JOB).exists():
            _require_same(path, JobFolder(path).job, job)
        elif others := sorted(entry.name for entry in path.iterdir() if entry.name not in (LOCK, _BEGUN)):
            raise JobError(f"{path}: not empty ({others[0]}) and no job; name a new folder")
        with written(path / JOB) as file:
            file.write(json.dumps(job.model_dump(mode="json"), indent=2).encode())
        return JobFolder(path)


def _require_same(path: Path, before: Job, now: Job) -> None:
    """Raise JobError when going on would mix results that do not belong together."""
    names = before.settled.keys() | now.settled.keys()
    changed = sorted(name for name in names if before.settled.get(name) != now.settled.get(name))
    if changed:
        name = changed[0]
        was, is_now = (str(settled.get(name))[:80] for settled in (before.settled, now.settled))
        raise JobError(
            f"{path}: holds a job with other {' and '.join(changed)} ({name} was {was}, is {is_now}); "
            f"name a new folder, or start afresh with --fresh"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with (path / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            raise BusyError(f"{path}: {holder} works on this job; wait until it has ended, or end it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


@contextlib.contextmanager
def written(path: Path, *, settled: bool = True) -> Iterator[BinaryIO]:
    """A file that replaces `path` as a whole when the block ends, also when the machine dies in the middle.

    Without `settled` the name may get lost then, the file being whole or not there; it takes half the time.
    """
    unfinished = path.with_name(f"_{path.name}{UNFINISHED}")  # the underscore hides it from readers of datasets
    with _alone(unfinished) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        unfinished.replace(path)
    if settled:
        sync(path.parent)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """An empty file at `path` that nobody else writes to: who was given up as lost, on Ray, may be at it still."""
    while True:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(path, file):  # it was not renamed while this one waited
                file.truncate(0)
                yield file
                return


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def remove(path: Path) -> None:
    """Remove a job and its results. Raises JobError when somebody works on it, or when it is no job."""
    if not path.exists():
        return
    with JobFolder(path).locked():
        shutil.rmtree(path)


def _read(path: Path, kind: type[Any], absent: str) -> Any:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise JobError(f"{path.parent}: {absent}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise JobError(f"{path}: {where}: {first['msg']}; remove the folder and begin again") from None


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
