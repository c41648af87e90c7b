"""Any number of lines in the order of their characters, with only so many of them in memory."""

from __future__ import annotations

import contextlib
import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import IO

IN_MEMORY = 100_000
"""Lines that are sorted at a time; more go to temporary files, sorted, and are merged from there."""


def in_order(lines: Iterable[str]) -> Iterator[str]:
    """`lines`, sorted. They may hold any character, and surrogates."""
    every = iter(lines)
    runs = iter(lambda: sorted(islice(every, IN_MEMORY)), [])
    first = next(runs, [])
    second = next(runs, None)
    if second is None:
        yield from first
        return
    with contextlib.ExitStack() as files:
        kept = [_kept(run, files) for run in chain((first, second), runs)]
        yield from heapq.merge(*(map(json.loads, file) for file in kept))


def _kept(run: list[str], files: contextlib.ExitStack) -> IO[str]:
    file = files.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))  # noqa: SIM115 - it is closed
    file.writelines(json.dumps(line) + "\n" for line in run)
    file.seek(0)
    return file
