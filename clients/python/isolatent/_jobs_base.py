"""What both kinds of job know of themselves, how long they are waited for, and their files. No requests."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

from isolatent import _progress
from isolatent._errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    IsolatentError,
    JobCancelled,
    JobError,
    JobFailed,
    JobTimeout,
)
from isolatent._jobs_answers import Part
from isolatent._progress import Progress
from isolatent._retry import RETRIED_STATUS
from isolatent.types import JobCounts, JobState

POLL = 1.0
"""Seconds between two questions where the service does not say."""
LONGEST = 30.0
_OVER = frozenset({"succeeded", "failed", "cancelled"})
_TRIES = 2
"""Downloads of a part whose content is not what it should be."""


class BaseJob:
    """What the service said of a job when it was last asked."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts

    @property
    def facts(self) -> Mapping[str, Any]:
        """All that the service says about the job, as in the JSON answer."""
        return self._facts

    @property
    def id(self) -> str:
        """`job-` and 32 hexadecimal digits."""
        return str(self._facts["id"])

    @property
    def state(self) -> JobState:
        """`queued`, `running`, `cancelling`; and, when it is over, `succeeded`, `failed` or `cancelled`."""
        return cast(JobState, self._facts["state"])

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in _OVER

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self._facts["model"])

    @property
    def version(self) -> str:
        """The model's version, that which was served when the job was made."""
        return str(self._facts["version"])

    @property
    def input(self) -> Mapping[str, str]:
        """{"file": ...} or {"path": ...}, with the column if one was named."""
        given: Mapping[str, str | None] = self._facts.get("input") or {}
        return {name: text for name, text in given.items() if text is not None}

    @property
    def outputs(self) -> tuple[str, ...]:
        """What is computed for each input."""
        return tuple(self._facts.get("outputs", ()))

    @property
    def format(self) -> str:
        """Of the parts: `parquet` or `jsonl`."""
        return str(self._facts["format"])

    @property
    def counts(self) -> JobCounts:
        """How far it is."""
        counts = self._facts["counts"]
        return JobCounts(counts.get("total"), counts.get("succeeded", 0), counts.get("failed", 0))

    @property
    def created_at(self) -> datetime | None:
        """When it was made."""
        return self._time("created_at")

    @property
    def started_at(self) -> datetime | None:
        """When it began to run, None before."""
        return self._time("started_at")

    @property
    def finished_at(self) -> datetime | None:
        """When it was over, None before."""
        return self._time("finished_at")

    @property
    def expires_at(self) -> datetime | None:
        """When the service deletes it with its results, None while that is not settled."""
        return self._time("expires_at")

    @property
    def error(self) -> str | None:
        """Why it failed, None where it did not."""
        error = self._facts.get("error")
        return str(error.get("detail") or error.get("code")) if isinstance(error, Mapping) else None

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was given along when it was made."""
        return self._facts.get("metadata") or {}

    def __repr__(self) -> str:
        """Id, state and counts."""
        counts = self.counts
        of = f" of {counts.total}" if counts.total is not None else ""
        failed = f", {counts.failed} failed" if counts.failed else ""
        return f"<{type(self).__name__} {self.id} {self.state}: {counts.succeeded + counts.failed}{of} done{failed}>"

    def _time(self, name: str) -> datetime | None:
        text = self._facts.get(name)
        return datetime.fromisoformat(text) if text else None

    def _settled(self, *, partial: bool) -> None:
        """Raise JobError unless there are all results, or `partial` ones are asked for."""
        if not partial and self.state != "succeeded":
            raise (ended(self) if self.is_over else unfinished(self))


class Waiting:
    """The time that a job is waited for: `pause` between two questions, `question` the time for one."""

    def __init__(self, job: BaseJob, timeout: float | None) -> None:
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout={timeout!r}, expected seconds, 0 or more, or None for no end")
        self._job, self._timeout = job, timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._last: IsolatentError | None = None

    def pause(self, asked: float | None) -> float:
        """Seconds until the next question, of which the service asked `asked`. Raises JobTimeout."""
        wait = min(POLL if asked is None else max(asked, 0.05), LONGEST)
        if self._deadline is None:
            return wait
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise late(self._job, self._timeout, self._last) from self._last
        return min(wait, left)

    def question(self, most: float) -> float:
        """Seconds that the next question may take, `most` at most. What became of the last one is forgotten."""
        self._last = None
        return most if self._deadline is None else min(most, max(self._deadline - time.monotonic(), 1.0))

    def missed(self, error: IsolatentError) -> float | None:
        """Seconds that the service asks for after a question without an answer. Raises `error` when others will fail.

        A service that restarts goes on with its jobs, so whoever waits for one lives through that.
        """
        self._last = error
        if isinstance(error, APIStatusError) and error.status in RETRIED_STATUS:
            return error.retry_after
        if isinstance(error, APIConnectionError):
            return None
        raise error


@contextmanager
def watching(progress: Progress) -> Iterator[Callable[[BaseJob], None]]:
    """A function that is shown a job whenever it has been asked about."""
    with _progress.states(progress) as show:

        def look(job: BaseJob) -> None:
            counts = job.counts
            show(counts.succeeded + counts.failed, counts.total)

        yield look


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return uuid.uuid4().hex


def ended(job: BaseJob) -> JobError:
    """The error for a job that is over without all of its results."""
    kept = "; job.results(partial=True) gives those of finished parts" if job.counts.succeeded else ""
    if job.state == "cancelled":
        return _error(JobCancelled, job, f"{job.id} was cancelled{kept}")
    return _error(JobFailed, job, f"{job.id} failed: {job.error or 'the service gave no reason'}{kept}")


def unfinished(job: BaseJob) -> JobError:
    """The error for a job whose results are asked for too early."""
    what = f"{job.id} is {job.state}"
    return _error(JobError, job, f"{what}; wait() for it first, or pass partial=True for the parts that are finished")


def late(job: BaseJob, timeout: float | None, last: IsolatentError | None) -> JobError:
    """The error for a job that takes longer than it was to be waited for."""
    message = f"{job.id} is {job.state} after {timeout:g} s, {_done(job)}; it goes on: wait again, or cancel() it"
    return _error(JobTimeout, job, message + (f". The last question got no answer: {last}" if last else ""))


def _done(job: BaseJob) -> str:
    counts = job.counts
    return f"{counts.succeeded + counts.failed} of {'?' if counts.total is None else counts.total} inputs done"


def _error(kind: type[JobError], job: BaseJob, message: str) -> JobError:
    counts, error = job.counts, job.facts.get("error")
    return kind(
        message,
        job_id=job.id,
        state=job.state,
        succeeded=counts.succeeded,
        failed=counts.failed,
        total=counts.total,
        code=error.get("code") if isinstance(error, Mapping) else None,
    )


def part_name(job: BaseJob, part: Part) -> str:
    """The file name of a part, as in the folder of a job."""
    return f"part-{part.index:06d}.{job.format}"


class Keeping:
    """A part on its way into a folder: `NAME.unfinished` until it is whole and its checksum is right."""

    def __init__(self, folder: Path, job: BaseJob, part: Part) -> None:
        self.path = folder / part_name(job, part)
        self._unfinished = folder / f"_{self.path.name}.unfinished"
        self._part = part
        self._tries = _TRIES

    def is_there(self) -> bool:
        """Whether an earlier download has brought it."""
        return self.path.exists() and self._is_right(self.path)

    def file(self) -> IO[bytes]:
        """Where the bytes go, after those that are there; what is longer than the part begins anew."""
        is_longer = self._unfinished.exists() and self._unfinished.stat().st_size > self._part.bytes
        return self._unfinished.open("wb" if is_longer else "ab")

    def finish(self, url: str) -> bool:
        """Give it its name; False where its content was wrong, and it is to be asked for again.

        Raises APIResponseError when it was wrong twice.
        """
        if self._is_right(self._unfinished):
            self._unfinished.replace(self.path)
            return True
        self._unfinished.unlink()
        self._tries -= 1
        if not self._tries:
            raise damaged(self._part, url)
        return False

    def _is_right(self, path: Path) -> bool:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return size == self._part.bytes and hashlib.file_digest(file, "sha256").hexdigest() == self._part.sha256


def checked(content: bytes, part: Part, url: str) -> bytes:
    """The content of a part, when it is that of the list. Raises APIResponseError."""
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise damaged(part, url)
    return content


def damaged(part: Part, url: str) -> APIResponseError:
    """The error for a part that arrives as something else."""
    return APIResponseError(f"{url}: part {part.index} has another sha256 than its list says; try again", url=url)


def incomplete(job: BaseJob, rows: int) -> APIResponseError:
    """The error for results that are fewer or more than the job counted."""
    what = f"{job.id} counts {job.counts.succeeded} results, its parts have {rows}"
    return APIResponseError(f"{what}; see the service's log", url=f"/v1/jobs/{job.id}/results")
