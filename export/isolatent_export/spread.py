"""A graph on several cores of a processor: a batch in pieces, each computed by one thread from end to end.

ONNX Runtime splits every operator among its threads instead, which then wait for each other after every one: as quick
on idle cores, up to two times slower where something else wants them too, as in a service. What is over too soon to be
handed around is left to it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_export.graphs import Graph

Array = NDArray[Any]

PIECES = 4
"""Per thread at most: one that is held up leaves its next pieces to the others."""
PIECE_SECONDS = 0.005
"""What a piece takes at least: a thread that takes one may have to wait for the interpreter's lock that long."""


class Spread:
    """Runs batches on `threads` threads, the caller's among them, when that makes a piece of `items` for each."""

    def __init__(self, one: Graph, few: Graph, threads: int, items: int) -> None:
        """`one` computes on the thread that calls it, and may be called by several; `few` takes all cores at once."""
        self._one = one
        self._few = few
        self._threads = threads
        self._items = items
        self._turns: SimpleQueue[_Turn | None] = SimpleQueue()
        for number in range(threads - 1):
            threading.Thread(target=_help, args=(self._turns,), name=f"spread-{number}", daemon=True).start()
        weakref.finalize(self, _dismiss, self._turns, threads - 1)

    def run(self, items: Array) -> list[Array]:
        """Items (N, ...) -> the outputs, each (N, ...). Thread-safe. Raises what `one` raises for any piece."""
        count = min(PIECES * self._threads, len(items) // self._items)
        if count < self._threads:
            return self._few.run(items)
        turn = _Turn(self._one, np.array_split(items, count))
        for _ in range(self._threads - 1):
            self._turns.put(turn)
        turn.work()
        return [np.concatenate(rows) for rows in zip(*turn.wait(), strict=True)]


def piece(one: Graph, item: Array) -> int:
    """Items that `one` computes in PIECE_SECONDS, by the quickest of three runs of `item` (1, ...)."""
    one.run(item)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        one.run(item)
        times.append(time.perf_counter() - began)
    return max(1, round(PIECE_SECONDS / min(times)))


class _Turn:
    """The pieces of one batch, which threads take until there are no more."""

    def __init__(self, graph: Graph, pieces: list[Array]) -> None:
        self._graph = graph
        self._waiting = deque(enumerate(pieces))
        self._done: list[list[Array]] = [[] for _ in pieces]
        self._left = len(pieces)
        self._lock = threading.Lock()  # of `_left`
        self._over = threading.Event()
        self._error: Exception | None = None

    def work(self) -> None:
        """Compute pieces until all are taken."""
        while self._waiting:
            try:
                place, piece = self._waiting.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                self._done[place] = self._graph.run(piece)
            except Exception as error:  # ONNX Runtime has an exception class per status code, with no common base
                self._error = error
            with self._lock:
                self._left -= 1
                if not self._left:
                    self._over.set()

    def wait(self) -> list[list[Array]]:
        """The outputs of all pieces, in order."""
        self._over.wait()
        if self._error:
            raise self._error
        return self._done


def _help(turns: SimpleQueue[_Turn | None]) -> None:
    """What a thread does until it is dismissed."""
    while turn := turns.get():
        turn.work()
        del turn  # its arrays are free now, not when the next one comes


def _dismiss(turns: SimpleQueue[_Turn | None], count: int) -> None:
    for _ in range(count):
        turns.put(None)
