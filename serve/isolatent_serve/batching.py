"""Greedy batching across requests: what has queued up while the worker was busy runs together, at once, without delay.

Turns are fair: each computation has its turn, and a large request lets the others come after each of its batches.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np

from isolatent_export.runtime import BUCKETS
from isolatent_serve.outputs import Array, Compute, Graphs, Tensors
from isolatent_serve.problems import Problem

Answer = Callable[[Tensors | Exception], None]

CHUNK = BUCKETS[-1]
"""Items per batch: large requests take turns with small ones, and memory stays bounded."""


@dataclass(eq=False)
class Job:
    """The items (N, ...) of one request, N >= 1, on their way; `answer` is called with what becomes of them."""

    compute: Compute
    items: Array
    answer: Answer
    outcome: Tensors | Exception | None = None
    """Tensors (N, ...) in the order of the items, or why there are none."""
    is_over: bool = False
    """Whether nobody waits for it: it is answered, or dropped."""
    arrived: float = field(default_factory=time.perf_counter)
    began: float = 0.0
    """When its first items were taken."""
    ended: float = 0.0
    """When the last of its items were done."""
    _taken: int = 0
    _done: list[Tensors] = field(default_factory=list)

    @property
    def kind(self) -> Hashable:
        """Jobs of one kind can share a batch."""
        return self.compute, self.items.dtype, self.items.shape[1:]

    @property
    def has_more(self) -> bool:
        """Whether items are left to be taken, and somebody waits for them."""
        return self._taken < len(self.items) and self.outcome is None and not self.is_over

    def take(self, count: int) -> Array:
        """The next items, `count` at most."""
        self.began = self.began or time.perf_counter()
        part = self.items[self._taken : self._taken + count]
        self._taken += len(part)
        return part

    def put(self, tensors: Tensors) -> None:
        """The rows of the items that were taken last."""
        self._done.append(tensors)
        if self._taken == len(self.items):
            self.ended = time.perf_counter()
            self.outcome = _join(self._done)

    def fail(self, error: Exception) -> None:
        """Its items cannot be computed."""
        self.ended = time.perf_counter()
        self.outcome = error


@dataclass(frozen=True)
class Batch:
    """Items of one kind, CHUNK at most in all, each part with the job that it is from."""

    parts: list[tuple[Job, Array]]

    @property
    def size(self) -> int:
        """The number of items."""
        return sum(len(items) for _, items in self.parts)

    @property
    def jobs(self) -> list[Job]:
        """The requests that the items are from."""
        return [job for job, _ in self.parts]

    def run(self, graphs: Graphs) -> bool:
        """Compute all parts together; when that fails, one by one: a bad request fails alone.

        Returns False when one failed for a reason that may be the graphs' own.
        """
        try:
            self._run(graphs)
        except Exception as error:  # ONNX Runtime has an exception class per status code, with no common base
            if len(self.parts) > 1:
                well = [Batch([part]).run(graphs) for part in self.parts]
                return all(well)
            self.parts[0][0].fail(error)
            return isinstance(error, Problem)
        return True

    def _run(self, graphs: Graphs) -> None:
        tensors = self.parts[0][0].compute(graphs, _concatenated([items for _, items in self.parts]))
        start = 0
        for job, items in self.parts:
            stop = start + len(items)
            job.put({name: rows[start:stop] for name, rows in tensors.items()})
            start = stop


class Queue:
    """Jobs that wait for the worker, by kind. Not thread-safe: the engine has a lock."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[Job]] = {}  # in the order of their turns

    def add(self, job: Job) -> None:
        """Let `job` wait behind those of its kind."""
        self._lines.setdefault(job.kind, deque()).append(job)

    def next(self) -> Batch | None:
        """What is to run now; None when nothing waits. Work that nobody waits for any more is dropped."""
        while self._lines:
            kind = next(iter(self._lines))
            line = self._lines.pop(kind)
            parts = _take(line)
            if line:
                self._lines[kind] = line  # its next turn comes after the other kinds
            if parts:
                return Batch(parts)
        return None

    def clear(self) -> list[Job]:
        """Take everything out."""
        jobs = [job for line in self._lines.values() for job in line]
        self._lines.clear()
        return jobs


def _take(line: deque[Job]) -> list[tuple[Job, Array]]:
    parts: list[tuple[Job, Array]] = []
    room = CHUNK
    unfinished: list[Job] = []
    while line and room:
        job = line.popleft()
        if job.has_more:
            parts.append((job, job.take(room)))
            room -= len(parts[-1][1])
            if job.has_more:
                unfinished.append(job)
    line.extend(unfinished)
    return parts


def _concatenated(arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _join(done: list[Tensors]) -> Tensors:
    return {name: _concatenated([tensors[name] for tensors in done]) for name in done[0]}
