"""Files and jobs as the store keeps them, and their way into and out of its columns."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

State = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]

STATES: tuple[State, ...] = get_args(State)
OVER: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})

_JSON = ("input", "outputs", "metadata", "error")
"""Columns that hold more than one value."""


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """An uploaded file. Times are seconds since 1970; `owner` is the name of a key, or "" without keys."""

    id: str
    owner: str
    filename: str
    suffix: str
    """Of the file on the disk: what its content is."""
    bytes: int
    sha256: str
    created: float
    expires: float
    number: int = 0
    """The order of creation, given by the database."""


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job. Times are seconds since 1970; `owner` is the name of a key, or "" without keys."""

    id: str
    owner: str
    model: str
    version: str
    bundle: str
    """Folder of the model's bundle, with the sha256 `digest` of its manifest."""
    digest: str
    input: dict[str, str]
    """As clients see it."""
    source: str
    """Where that is: a file, or a pattern."""
    file: str | None = None
    """The uploaded file that it is, if any."""
    outputs: tuple[str, ...]
    format: str
    samples: int
    metadata: dict[str, str] = field(default_factory=dict)
    created: float
    key: str | None = None
    """The idempotency key, and `request` the digest of what was asked with it."""
    request: str = ""
    state: State = "queued"
    total: int | None = None
    succeeded: int = 0
    failed: int = 0
    started: float | None = None
    finished: float | None = None
    expires: float | None = None
    error: dict[str, str] | None = None
    number: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in OVER


def columns(row: FileRow | JobRow) -> dict[str, Any]:
    """What is written of a row: all but its number."""
    values = {each.name: getattr(row, each.name) for each in fields(row) if each.name != "number"}
    return {name: json.dumps(value) if name in _JSON and value is not None else value for name, value in values.items()}


def file_row(found: Any) -> FileRow:
    """A row as it was read."""
    return FileRow(**dict(found))


def job_row(found: Any) -> JobRow:
    """A row as it was read."""
    values = dict(found)
    values.update({name: json.loads(values[name]) for name in _JSON if values[name] is not None})
    return JobRow(**values | {"outputs": tuple(values["outputs"])})
