"""How far a long call is: a line on stderr, or the caller's own function."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = "bool | Callable[[int, int | None], object]"
"""False: nothing; True: a line on stderr; or a function that is called with the number of inputs done, and of all
inputs, None where that cannot be told."""

_EVERY = 0.1
"""Seconds between two states of the line; where stderr is no terminal, ten are lines of their own."""
_PLAIN = 10.0


@contextmanager
def shown(progress: Progress, total: int | None) -> Iterator[Callable[[int], None]]:
    """A function that takes how many more inputs are done."""
    show = _Line() if progress is True else progress or _nothing
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        show(done, total)

    try:
        yield add
    finally:
        if isinstance(show, _Line):
            show.end(done, total)


def _nothing(done: int, total: int | None) -> None:
    """Show nothing."""


class _Line:
    """`640 of 10000 inputs, 1234/s, 8 s left`: written over itself on a terminal, else now and then."""

    def __init__(self) -> None:
        self._started = self._shown = time.monotonic()
        self._over = sys.stderr.isatty()

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._shown >= (_EVERY if self._over else _PLAIN):
            self._shown = now
            self._write(done, total, "" if self._over else "\n")

    def end(self, done: int, total: int | None) -> None:
        self._write(done, total, "\n")

    def _write(self, done: int, total: int | None, end: str) -> None:
        rate = done / max(time.monotonic() - self._started, 1e-9)
        of = "" if total is None else f" of {total}"
        left = f", {(total - done) / rate:.0f} s left" if total and 0 < done < total else ""
        text = f"{done}{of} inputs, {rate:.0f}/s{left}"
        sys.stderr.write(f"\r{text:60}{end}" if self._over else f"{text}{end}")
        sys.stderr.flush()
