"""The local engine: processes that compute whole shards, one per core. Only numbers of shards pass between them.

A process that dies, or takes too long for one input, is replaced. The input that it had in hand is tried alone in
another one; when that comes to nothing as well, the input is put among the errors, and nothing else is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from isolatent._machine import cores
from isolatent_export.device import offers_cuda
from isolatent_serve.jobs.folder import Counts, JobFolder, Progress
from isolatent_serve.jobs.shard import ELSEWHERE
from isolatent_serve.jobs.spec import JobError
from isolatent_serve.jobs.worker import BOARD_BYTES, Board, Sign

OnProgress = Callable[[Progress], None]

MOST_ON_A_GPU = 8
"""Processes that share one by default: they decode beside each other, and each takes its own memory there."""

MOST_DEATHS = 5
"""Processes that may end before they have begun, or at one shard but at none of its inputs."""

_TICK_SECONDS = 0.2
_STUCK_SECONDS = 600.0
_END_SECONDS = 5.0

_COMMAND = [sys.executable, "-P", "-m", "isolatent_serve.jobs.worker"]
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


def run(
    folder: JobFolder,
    processes: int | None = None,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> Counts:
    """Compute the shards that are not done yet, until all are or `stop` is set; shards that are done stay.

    `processes` None: one per core that may be used. Raises JobError: the job is not planned, somebody else works on
    it, the model is not what it was, results cannot be written, or processes die without an input to blame.
    """
    with folder.locked():
        todo = folder.todo()
        if todo:
            crew = _Crew(folder, todo, on_progress or _ignore)
            crew.run(min(processes or default_processes(folder), len(todo)), stop or threading.Event())
        return folder.counts()


def default_processes(folder: JobFolder) -> int:
    """As many as there are cores to use; on a GPU not more than fit beside each other."""
    on_gpu = folder.spec.device != "cpu" and offers_cuda()
    return min(cores(), MOST_ON_A_GPU) if on_gpu else cores()


class Hand:
    """One process for an engine that gives out the shards itself: it is replaced when it dies.

    It ends with the process that has it, as all of them do.
    """

    def __init__(self, folder: JobFolder) -> None:
        """It begins with the first shard."""
        self._folder = folder
        self._crew = _Crew(folder, [], _ignore)

    def compute(self, shard: int) -> Counts:
        """Compute one shard. Raises JobError as `run` does."""
        self._crew.add(shard)
        self._crew.work(1, threading.Event())
        return self._folder.counts_of(shard)


@dataclass
class _Work:
    """What a process is asked to do: a shard, or one input of it alone, to see whether it ends the process."""

    shard: int
    alone: int | None = None


class _Crew:
    """The processes, and what is left for them to do."""

    def __init__(self, folder: JobFolder, todo: list[int], on_progress: OnProgress) -> None:
        self._folder = folder
        self._left = deque(_Work(number) for number in todo)
        self._on_progress = on_progress
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._blamed: dict[int, dict[int, str]] = {}
        self._acquitted: set[tuple[int, int]] = set()
        self._deaths: Counter[int | None] = Counter()
        self._counts = folder.counts()
        self._done = folder.shards - len(todo)

    def run(self, processes: int, stop: threading.Event) -> None:
        """Keep so many processes busy until nothing is left, or `stop` is set; then they end. Raises JobError."""
        try:
            self.work(processes, stop)
            if not stop.is_set():
                for worker in self._workers:
                    worker.dismiss()
        finally:
            self.end()

    def work(self, processes: int, stop: threading.Event) -> None:
        """Like `run`, but the processes stay for what is added later. Raises JobError."""
        self._tell()
        while (self._left or any(worker.work for worker in self._workers)) and not stop.is_set():
            while self._left and len(self._workers) < processes:
                self._hire()
            self._wait()
            self._watch()

    def add(self, shard: int) -> None:
        """One more shard to compute."""
        self._left.append(_Work(shard))
        for worker in self._workers:
            if worker.work is None:
                self._give(worker)

    def end(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.end()
        self._selector.close()

    def _hire(self) -> None:
        worker = _Worker(self._folder.path)
        self._workers.append(worker)
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)
        self._give(worker)

    def _give(self, worker: _Worker) -> None:
        worker.work = None
        if self._left:
            work = self._left.popleft()
            worker.give(work, self._blamed.get(work.shard, {}))

    def _wait(self) -> None:
        """Hear what the processes say, for a moment."""
        for key, _ in self._selector.select(_TICK_SECONDS):
            worker: _Worker = key.data
            said = worker.hear()
            if said is None:
                self._replace(worker)
            elif "error" in said:
                raise JobError(said["error"])
            elif said:
                self._finished(worker)
        self._tell()

    def _finished(self, worker: _Worker) -> None:
        work = worker.work
        assert work
        self._deaths[None] = 0
        if work.alone is not None:
            self._acquitted.add((work.shard, work.alone))
            self._left.appendleft(_Work(work.shard))
        else:
            counts = self._folder.counts_of(work.shard)
            self._counts = Counts(
                self._counts.total, self._counts.succeeded + counts.succeeded, self._counts.failed + counts.failed
            )
            self._done += 1
        self._give(worker)

    def _replace(self, worker: _Worker) -> None:
        """Find out what a process that is gone died of; its work is done by another."""
        self._selector.unregister(worker.answers)
        self._workers.remove(worker)
        place, work = worker.place, worker.work
        worker.end()
        if work is None:
            return
        if place is None:
            self._count_death(work.shard if worker.proven else None, worker)
            self._left.appendleft(work)
        elif work.alone is not None or (work.shard, place) in self._acquitted:
            self._blame(work.shard, place, "parser_timeout" if worker.too_slow else "parser_crashed")
        else:
            self._left.appendleft(_Work(work.shard, alone=place))

    def _blame(self, shard: int, place: int, code: str) -> None:
        self._blamed.setdefault(shard, {})[place] = code
        self._left.appendleft(_Work(shard))

    def _count_death(self, shard: int | None, worker: _Worker) -> None:
        """Raise JobError when this cannot go on for ever."""
        self._deaths[shard] += 1
        if self._deaths[shard] >= MOST_DEATHS:
            where = "before it began" if shard is None else f"at no input of shard {shard}"
            raise JobError(f"a process ended {where}, again ({worker.fate}); is there enough memory? Then run it again")

    def _watch(self) -> None:
        """End processes that take too long for one input."""
        for worker in self._workers:
            worker.end_if_stuck(self._folder.spec.limits.parse_seconds)

    def _tell(self) -> None:
        under_way = sum(worker.reached for worker in self._workers)
        self._on_progress(Progress(self._counts, self._done, self._folder.shards, under_way))


class _Seen(NamedTuple):
    """A sign on a board, and when it was seen first: seconds of the process's time, and of the clock's."""

    sign: Sign
    processor: float
    moment: float


class _Worker:
    """One process, seen from the one that gives it work. It begins at once."""

    def __init__(self, folder: Path) -> None:
        self.work: _Work | None = None
        self.proven = False
        """Whether it has finished something."""
        self.too_slow = False
        """Whether it was ended for taking too long."""
        self._reached = 0
        self._seen: _Seen | None = None
        self._said = b""
        descriptor = os.memfd_create("isolatent-board")
        try:
            os.ftruncate(descriptor, BOARD_BYTES)
            self._board = Board(descriptor)
            self._board.beat(ELSEWHERE)
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[descriptor],
                env=os.environ | _ONE_THREAD,
                bufsize=0,
            )
        finally:
            os.close(descriptor)
        assert self._process.stdin
        assert self._process.stdout
        self._orders, self.answers = self._process.stdin, self._process.stdout
        self._send({"folder": str(folder), "parent": os.getpid(), "board": descriptor})

    def give(self, work: _Work, blamed: dict[int, str]) -> None:
        """Let it do `work`, leaving out the blamed inputs."""
        self.work, self._reached = work, 0
        alone = {} if work.alone is None else {"alone": work.alone}
        self._send({"shard": work.shard, "blamed": blamed} | alone)

    def hear(self) -> dict[str, Any] | None:
        """What it says, to be called when there is something; {} for a part of it, None when the process has ended."""
        more = self.answers.read(2**16)
        if not more:
            return None
        self._said += more
        if not self._said.endswith(b"\n"):
            return {}
        said: dict[str, Any] = json.loads(self._said)
        self._said, self.proven = b"", True
        return said

    @property
    def place(self) -> int | None:
        """Place in its shard of the input in hand, if any."""
        place = self._board.read().place
        return None if place == ELSEWHERE else place

    @property
    def reached(self) -> int:
        """How many inputs of its shard it has looked at."""
        self._reached = max(self._reached, self._board.read().place) if self.work else 0
        return self._reached

    def end_if_stuck(self, seconds: float) -> None:
        """Kill it when one input has taken so much processor time, or next to none in much more time."""
        sign = self._board.read()
        used, now = _processor_time(self._process.pid), time.monotonic()
        if self._seen is None or self._seen.sign != sign:
            self._seen = _Seen(sign, used, now)
        elif sign.place != ELSEWHERE:
            too_long = now - self._seen.moment > max(_STUCK_SECONDS, seconds)
            if too_long or used - self._seen.processor > seconds:
                self.too_slow = True
                self._process.kill()

    def dismiss(self) -> None:
        """Let it end: there is nothing more to do."""
        with contextlib.suppress(OSError):
            self._orders.close()

    def end(self) -> None:
        """Wait a little for its end, or kill it when it was not dismissed."""
        if not self._orders.closed:
            self._process.kill()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            self._orders.close()
        self.answers.close()
        self._board.close()

    @property
    def fate(self) -> str:
        """How it ended."""
        code = self._process.returncode
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _send(self, words: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone, which is noticed where it is listened to
            self._orders.write(json.dumps(words).encode() + b"\n")


def _processor_time(pid: int) -> float:
    """Seconds that a process has used of any processor; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ignore(_progress: Progress) -> None:
    pass
