"""Contestants that take turns: each in a process of its own, and only one of them at work, for a few updates.

A shared machine is now fast, now slow, for seconds or minutes. Turns much shorter than that meet all contestants alike,
and ratios of times that lie next to each other stay what they are.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Turn:
    """A contestant's side: it calls `update` after each of its updates, which waits while others have their turns."""

    def __init__(self, connection: Connection, length: int) -> None:
        self._connection, self._length = connection, length
        self._updates = 0
        self._started = self._wait()

    def update(self, *_: Any) -> None:
        """One update is done; the last of a turn hands over."""
        self._updates += 1
        if self._updates % self._length == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self._connection.send(time.perf_counter() - self._started)
            self._started = self._wait()

    def _wait(self) -> float:
        self._connection.recv()
        return time.perf_counter()


def contest(
    contestants: dict[str, Callable[[Turn], Any]], *, turns: int, length: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Let every contestant do `turns` times `length` updates; the seconds of its turns, and what it returned.

    They go there and back: the last of one round is the first of the next. Contestants are started afresh and must be
    picklable. Raises RuntimeError when one fails or does another number of updates.
    """
    context = multiprocessing.get_context("spawn")
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    lines: dict[str, Connection] = {}
    with ExitStack() as stack:
        for name, contestant in contestants.items():
            lines[name], theirs = context.Pipe()
            process = context.Process(target=_compete, args=(contestant, theirs, length), daemon=True)
            process.start()
            stack.callback(process.terminate)
            theirs.close()
        for number in range(turns):
            for name in list(contestants)[:: -1 if number % 2 else 1]:
                took = _answer(name, lines[name])
                if not isinstance(took, float):
                    raise RuntimeError(f"{name} ended after {number * length} of {turns * length} updates")
                seconds[name].append(took)
        results = {name: _answer(name, line) for name, line in lines.items()}
    if wrong := [name for name, result in results.items() if isinstance(result, float)]:
        raise RuntimeError(f"more than {turns * length} updates: {', '.join(wrong)}")
    return seconds, {name: result["returned"] for name, result in results.items()}


def ratio(reference: list[float], own: list[float]) -> tuple[float, tuple[float, float]]:
    """How many times as fast as the reference, and its 95 % interval over turns, bootstrapped in pairs."""
    pairs = np.array([reference, own])
    chosen = np.random.default_rng(0).integers(pairs.shape[1], size=(10_000, pairs.shape[1]))
    totals = pairs[:, chosen].sum(2)
    low, high = np.quantile(totals[0] / totals[1], (0.025, 0.975))
    return float(pairs[0].sum() / pairs[1].sum()), (float(low), float(high))


def _answer(name: str, line: Connection) -> Any:
    """Give the contestant its turn, and wait for the end of it."""
    try:
        line.send(None)
        answer = line.recv()
    except (EOFError, ConnectionError) as error:
        raise RuntimeError(f"{name}: its process ended") from error
    if isinstance(answer, str):
        raise RuntimeError(f"{name} failed:\n{answer}")
    return answer


def _compete(contestant: Callable[[Turn], Any], connection: Connection, length: int) -> None:
    with Path(os.devnull).open("w") as nowhere, connection:
        os.dup2(nowhere.fileno(), 1)  # progress bars of one would be among the lines of another
        try:
            connection.send({"returned": contestant(Turn(connection, length))})
        except Exception:
            connection.send(traceback.format_exc())
