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

Write: TypeAlias = "Callable[[int, int | None, float], str]"
"""What a line says: of how many are done, how many there are, and how many come in a second."""

_EVERY = 0.1
"""Seconds between two states of the line; where stderr is no terminal, ten are lines of their own."""
_PLAIN = 10.0


@contextmanager
def shown(progress: Progress, total: int | None, write: Write | None = None) -> Iterator[Callable[[int], None]]:
    """A function that takes how many more inputs are done."""
    done = 0
    with states(progress, write) as show:

        def add(count: int) -> None:
            nonlocal done
            done += count
            if count:
                show(done, total)

        if progress is True:
            show(0, total)
        yield add


@contextmanager
def states(progress: Progress, write: Write | None = None) -> Iterator[Callable[[int, int | None], object]]:
    """A function that takes how many are done, and of how many. `write` words a state of the line."""
    show = Line(write or of_inputs) if progress is True else progress or _nothing
    try:
        yield show
    finally:
        if isinstance(show, Line):
            show.end()


def _nothing(done: int, total: int | None) -> None:
    """Show nothing."""


def of_inputs(done: int, total: int | None, rate: float) -> str:
    """`640 of 10000 inputs, 1234/s, 8 s left`."""
    of = "" if total is None else f" of {total}"
    return f"{done}{of} inputs, {rate:.0f}/s{_left(done, total, rate)}"


def of_bytes(done: int, total: int | None, rate: float) -> str:
    """`12.5 of 80.0 MB, 9.3 MB/s, 7 s left`."""
    of = "" if total is None else f" of {total / 1e6:.1f}"
    return f"{done / 1e6:.1f}{of} MB, {rate / 1e6:.1f} MB/s{_left(done, total, rate)}"


def _left(done: int, total: int | None, rate: float) -> str:
    return f", {(total - done) / rate:.0f} s left" if total and rate > 0 and 0 < done < total else ""


class Line:
    """A line that is written over itself on a terminal, else now and then a new one.

    What is done when it first hears of it counts for the whole, not for the rate.
    """

    def __init__(self, write: Write) -> None:
        self._words = write
        self._started = self._shown = time.monotonic()
        self._over = sys.stderr.isatty()
        self._before: int | None = None
        self._state: tuple[int, int | None] = (0, None)

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        self._state = done, total
        if self._before is None:
            self._before, self._started = done, now
        elif now - self._shown >= (_EVERY if self._over else _PLAIN):
            self._shown = now
            self._write("" if self._over else "\n")

    def end(self) -> None:
        """Leave the last state standing, if there was any."""
        if self._before is not None:
            self._write("\n")

    def _write(self, end: str) -> None:
        done, total = self._state
        rate = (done - (self._before or 0)) / max(time.monotonic() - self._started, 1e-9)
        text = self._words(done, total, rate)
        sys.stderr.write(f"\r{text:60}{end}" if self._over else f"{text}{end}")
        sys.stderr.flush()
