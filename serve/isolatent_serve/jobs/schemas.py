"""Files and jobs as types: what is asked for, what is answered, and what /openapi.json says about both."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from isolatent_serve.jobs.rows import FileRow, JobRow, State
from isolatent_serve.jobs.spec import OutputName
from isolatent_serve.options import MOST_SAMPLES

FILE_ID = r"^file-[0-9a-f]{32}$"
JOB_ID = r"^job-[0-9a-f]{32}$"

FileId = Annotated[str, StringConstraints(pattern=FILE_ID)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Value = Annotated[str, StringConstraints(max_length=512)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileInput(_Closed):
    """An uploaded file."""

    file: FileId = Field(examples=["file-0123456789abcdef0123456789abcdef"])
    column: Column | None = Field(default=None, description="of a Parquet file: the one that holds the inputs")


class PathInput(_Closed):
    """Files of the service's machine, below the directories that it was given."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(examples=["images/2026/*.png"])
    column: Column | None = Field(default=None, description="of a Parquet file: the one that holds the inputs")


class JobRequest(_Closed):
    """A job to be done. null counts as not given."""

    model: Annotated[str, StringConstraints(max_length=256)] | None = Field(
        default=None, description="may be left out when one model is served"
    )
    input: FileId | FileInput | PathInput
    outputs: list[OutputName] | None = Field(
        default=None, description="columns of the results; the posterior is always among them", max_length=16
    )
    format: Literal["parquet", "jsonl"] | None = None
    samples: Annotated[int, Field(ge=1, le=MOST_SAMPLES, strict=True)] | None = Field(
        default=None, description="for consistency: transformed copies of each input"
    )
    metadata: Annotated[dict[Key, Value], Field(max_length=16)] | None = None


class File(_Closed):
    """An uploaded file. It is kept until `expires_at`, and beyond while a job needs it."""

    object: Literal["file"] = "file"
    id: FileId
    filename: str
    bytes: int
    sha256: str
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, row: FileRow) -> File:
        """What clients see of a row."""
        return cls(
            id=row.id,
            filename=row.filename,
            bytes=row.bytes,
            sha256=row.sha256,
            created_at=_time(row.created),
            expires_at=_time(row.expires),
        )


class Counts(_Closed):
    """Inputs of a job: `total` is null until all are listed."""

    total: int | None
    succeeded: int
    failed: int


class JobFailure(_Closed):
    """Why a job could not be done."""

    code: str = Field(examples=["not_possible"])
    detail: str


class Job(_Closed):
    """A job. Its results are kept until `expires_at`."""

    object: Literal["job"] = "job"
    id: Annotated[str, StringConstraints(pattern=JOB_ID)]
    state: State
    model: str
    version: str
    input: FileInput | PathInput
    outputs: list[OutputName]
    format: Literal["parquet", "jsonl"]
    counts: Counts
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    error: JobFailure | None
    metadata: dict[str, str]

    @classmethod
    def of(cls, row: JobRow) -> Job:
        """What clients see of a row."""
        return cls.model_validate(
            {
                "id": row.id,
                "state": row.state,
                "model": row.model,
                "version": row.version,
                "input": row.input,
                "outputs": row.outputs,
                "format": row.format,
                "counts": Counts(total=row.total, succeeded=row.succeeded, failed=row.failed),
                "created_at": _time(row.created),
                "started_at": row.started and _time(row.started),
                "finished_at": row.finished and _time(row.finished),
                "expires_at": row.expires and _time(row.expires),
                "error": row.error,
                "metadata": row.metadata,
            }
        )


class FileList(_Closed):
    """A page of files, the newest first."""

    object: Literal["list"] = "list"
    data: list[File]
    next_page_token: str | None = Field(description="for the next page; null on the last")


class JobList(_Closed):
    """A page of jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[Job]
    next_page_token: str | None = Field(description="for the next page; null on the last")


class Part(_Closed):
    """A finished part of a job's results."""

    object: Literal["part"] = "part"
    index: int
    rows: int
    bytes: int
    sha256: str
    href: str


class PartList(_Closed):
    """The finished parts, in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Part]


class ItemFailure(_Closed):
    """A line of the errors: an input that failed."""

    id: str
    index: int
    code: str = Field(examples=["undecodable"])
    detail: str


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
