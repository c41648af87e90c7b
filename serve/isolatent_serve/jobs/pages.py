"""Lists in pages: which one a request asks for, and where the next one begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from isolatent_serve.jobs.rows import STATES, FileRow, JobRow
from isolatent_serve.problems import Problem

PAGE, LARGEST_PAGE = 50, 1000
"""Entries of a page, unless another number is asked for, and at most."""


@dataclass(frozen=True)
class Page:
    """At most `size` entries that were made before number `before`; of jobs, those in `state`, if one is given."""

    size: int
    before: int | None
    state: str | None

    @property
    def most(self) -> int:
        """One entry more than the page has, to see whether there is another page."""
        return self.size + 1

    def next_token(self, rows: Sequence[FileRow] | Sequence[JobRow]) -> str | None:
        """What asks for the page behind this one, whose `rows` are up to `most`."""
        return f"{rows[self.size - 1].number:x}" if len(rows) > self.size else None


def read(request: Request, *, by_state: bool = False) -> Page:
    """The page that a request asks for. Raises Problem `unknown_field` or `invalid_option`."""
    require_known(request, {"page_size", "page_token", *(["state"] if by_state else [])})
    given = request.query_params
    size, token, state = given.get("page_size", str(PAGE)), given.get("page_token"), given.get("state")
    if not (size.isascii() and size.isdigit() and len(size) < 5 and 1 <= int(size) <= LARGEST_PAGE):
        raise _invalid("page_size", f"a whole number from 1 to {LARGEST_PAGE}")
    if state is not None and state not in STATES:
        raise _invalid("state", f"one of {', '.join(STATES)}")
    return Page(int(size), None if token is None else _number(token), state)


def require_known(request: Request, known: set[str]) -> None:
    """Raise Problem `unknown_field` for other query parameters."""
    for name in request.query_params:
        if name not in known:
            expected = f"known are {', '.join(sorted(known))}" if known else "there are none"
            raise Problem("unknown_field", f"query parameter {name[:80]!r} is not known here; {expected}")


def _number(token: str) -> int:
    try:
        if 0 < len(token) < 16 and token.isalnum():
            return int(token, 16)
    except ValueError:
        pass
    raise _invalid("page_token", "the next_page_token of the page before")


def _invalid(name: str, expected: str) -> Problem:
    return Problem("invalid_option", f"{name}: expected {expected}; correct it or leave it out")
