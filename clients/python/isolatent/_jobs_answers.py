"""Answers about files and jobs as plain values. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from isolatent._answers import Answer, json_object, unexpected
from isolatent._errors import APIResponseError
from isolatent._retry import retry_after
from isolatent._wire import Call
from isolatent.types import JobItemError, StoredFile

T = TypeVar("T")
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError)
_JOB = {"id": str, "state": str, "model": str, "version": str, "format": str, "counts": dict}
"""What every job says of itself."""


@dataclass(frozen=True)
class Part:
    """One finished part of a job's results."""

    index: int
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Page:
    """Some entries of a list, and where it goes on, if it does."""

    entries: list[Any]
    next: str | None


def stored_file(answer: Answer, call: Call) -> StoredFile:
    """One file. Raises APIResponseError."""
    return _read(StoredFile.from_facts, json_object(answer, call), answer, call)


def stored_files(answer: Answer, call: Call) -> Page:
    """A page of StoredFile. Raises APIResponseError."""
    return _page(StoredFile.from_facts, answer, call)


def job(answer: Answer, call: Call) -> Mapping[str, Any]:
    """The facts about one job, checked. Raises APIResponseError."""
    return _read(_job, json_object(answer, call), answer, call)


def jobs(answer: Answer, call: Call) -> Page:
    """A page of facts about jobs. Raises APIResponseError."""
    return _page(_job, answer, call)


def parts(answer: Answer, call: Call) -> list[Part]:
    """All finished parts. Raises APIResponseError."""
    return _entries(_part, json_object(answer, call), answer, call)


def pause(answer: Answer) -> float | None:
    """Seconds until it is worth asking again, as the service says."""
    return retry_after(answer.headers.get("retry-after"))


def item_errors(lines: Iterable[bytes], url: str) -> Iterator[JobItemError]:
    """One for each line. Raises APIResponseError."""
    for line in lines:
        try:
            facts = json.loads(line)
            yield JobItemError(*(facts[name] for name in ("id", "index", "code", "detail")))
        except _MALFORMED:
            raise APIResponseError(f"{url}: {line[:80]!r} is no line about an input", url=url) from None


def _job(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, kind in _JOB.items():
        if not isinstance(facts[name], kind):
            raise TypeError(f"{name} is {facts[name]!r}")
    return facts


def _part(facts: Mapping[str, Any]) -> Part:
    return Part(*(facts[name] for name in ("index", "rows", "bytes", "sha256")))


def _page(read: Callable[[Any], object], answer: Answer, call: Call) -> Page:
    facts = json_object(answer, call)
    return Page(_entries(read, facts, answer, call), facts.get("next_page_token"))


def _entries(read: Callable[[Any], T], facts: Mapping[str, Any], answer: Answer, call: Call) -> list[T]:
    return _read(lambda given: [read(entry) for entry in given["data"]], facts, answer, call)


def _read(read: Callable[[Any], T], facts: Mapping[str, Any], answer: Answer, call: Call) -> T:
    try:
        return read(facts)
    except _MALFORMED as error:
        raise unexpected(answer, call, f"what it says is incomplete ({error!r})") from None
