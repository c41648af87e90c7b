"""Run or resume a job in its folder, and tell how far it is, one line of JSON at a time.

python -m isolatent_serve.jobs FOLDER [--processes N] [--background]

SIGTERM and Ctrl-C end it: shards that are done stay, and the next run goes on from there. It also ends with the process
that started it. Exit code 0: done; 1: done, some inputs failed; 2: not done, the last line says why; 143: ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from typing import Any

from isolatent_serve.jobs import local
from isolatent_serve.jobs.folder import BusyError, Counts, JobFolder, Progress
from isolatent_serve.jobs.merge import finish
from isolatent_serve.jobs.plan import Stopped, plan
from isolatent_serve.jobs.spec import JobError
from isolatent_serve.jobs.worker import end_with

DONE, DONE_WITH_FAILURES, FAILED, ENDED = 0, 1, 2, 128 + signal.SIGTERM


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    args = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    end_with(args.parent or os.getppid(), signal.SIGTERM)
    if args.background:
        _give_way()
    try:
        return _run(JobFolder(args.folder), args.processes, stop)
    except (JobError, OSError) as error:
        _tell("failed", None, error=str(error), busy=isinstance(error, BusyError))
        return FAILED


def _run(folder: JobFolder, processes: int | None, stop: threading.Event) -> int:
    try:
        plan(folder, on_listed=lambda _: _tell("running", None), stop=stop)
    except Stopped:
        _tell("cancelled", None)
        return ENDED
    counts = local.run(folder, processes, _tell_changes(), stop)
    if left := len(folder.todo()):
        _tell("cancelled", counts, shards=[folder.shards - left, folder.shards])
        return ENDED
    finish(folder)
    _tell("succeeded", counts, shards=[folder.shards, folder.shards])
    return DONE_WITH_FAILURES if counts.failed else DONE


def _tell_changes() -> local.OnProgress:
    """What tells each progress once."""
    last: list[Progress] = []

    def tell(progress: Progress) -> None:
        if last != [progress]:
            last[:] = [progress]
            shards = [progress.done, progress.shards]
            _tell("running", progress.counts, shards=shards, under_way=progress.under_way)

    return tell


def _tell(state: str, counts: Counts | None, **more: Any) -> None:
    facts = {"state": state, "total": None, "succeeded": 0, "failed": 0, "shards": [0, None]}
    facts |= {} if counts is None else vars(counts)
    with contextlib.suppress(BrokenPipeError):  # nobody listens
        print(json.dumps(facts | more), flush=True)


def _give_way() -> None:
    """Take the time that nobody else wants, here and in the processes that this one starts."""
    os.nice(19)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m isolatent_serve.jobs", description="Run or resume a job.")
    parser.add_argument("folder", help="folder of the job")
    parser.add_argument("--processes", type=_count, help="processes that compute (default: one per core)")
    parser.add_argument("--parent", type=_count, help=argparse.SUPPRESS)  # which may have ended by now
    parser.add_argument("--background", action="store_true", help="take only the time that nobody else wants")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count


if __name__ == "__main__":
    sys.exit(main())
