"""`isolatent embed` as a job in a folder: planned once, computed shard by shard, and resumed where it was interrupted.

This imports the core of jobs (extra `jobs`), so that it is imported only where a job is run.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import ValidationError

from isolatent import _progress
from isolatent.cli import CommandError, _embed_trial, embed
from isolatent.cli._embed_served import Served
from isolatent.cli._service import print_json, service
from isolatent_serve.jobs import Counts, JobError, JobFolder, JobSpec, create, finish, local
from isolatent_serve.jobs.folder import ALL_ERRORS, JOB, Progress, remove
from isolatent_serve.jobs.merge import TARGETS, Listing, merged_errors
from isolatent_serve.jobs.plan import OnListed, Stopped, plan

_INTERRUPTED = 130


@dataclass(frozen=True)
class Target:
    """Where results go: a folder of parts, and one file that they are merged into, if any."""

    folder: Path
    format: str
    file: Path | None

    @property
    def errors(self) -> Path:
        """Where the inputs that failed are listed."""
        return merged_errors(self.file) if self.file else self.folder / ALL_ERRORS

    def __str__(self) -> str:
        return str(self.file or self.folder)


def run(args: argparse.Namespace) -> int:
    """Do the job, or go on with it. Exit code 1 when some inputs failed. Raises CommandError."""
    target = _target(args)
    if target.format == "parquet" and find_spec("pyarrow") is None:  # the processes that write would say it late
        raise ModuleNotFoundError(name="pyarrow")
    with ExitStack() as stack:
        served = None if embed.is_local(args) else Served(stack.enter_context(service(args, max_retries=8)), args)
        job = _Job(args, target, served, stack.enter_context(_stoppable()))
        try:
            return job.try_out() if args.dry_run else job.do()
        except (JobError, OSError) as error:
            raise CommandError(str(error)) from None


class _Job:
    """What one call of the command does."""

    def __init__(self, args: argparse.Namespace, target: Target, served: Served | None, stop: threading.Event) -> None:
        self._args, self._target, self._served, self._stop = args, target, served, stop
        self._spec = _spec(args, target, served)

    def do(self) -> int:
        """Plan, compute, merge and report. Raises JobError."""
        started = time.monotonic()
        if self._args.fresh:
            remove(self._target.folder)
        folder = self._begin(self._target.folder)
        with _watched() as watch:
            try:
                self._plan(folder, watch.listed)
            except Stopped:
                return self._interrupted(None)
            before = folder.counts()
            counts = self._compute(folder, watch)
        if folder.todo():
            return self._interrupted(counts)
        listing = finish(folder, self._target.file)
        if self._target.file and not self._args.keep_parts:
            remove(self._target.folder)
        now = counts.total - before.succeeded - before.failed
        _report(self._args, self._target, listing, now, time.monotonic() - started)
        return 1 if counts.failed else 0

    def try_out(self) -> int:
        """List the inputs into a folder that is thrown away, try the first ones, and say what was found."""
        with tempfile.TemporaryDirectory(prefix="isolatent-") as place:
            folder = self._begin(Path(place))
            with suppress(Stopped):
                self._plan(folder, None)
                found = _embed_trial.look(folder, self._try)
        if self._stop.is_set():
            raise KeyboardInterrupt
        if (self._target.folder / JOB).exists() and not self._args.fresh:
            there = self._begin(self._target.folder)  # raises where it is another job
            found["done"] = there.shards - len(there.todo()) if there.planned else 0
        if self._args.json:
            print_json({"out": str(self._target), **found})
        else:
            print(*_embed_trial.words(found), sep="\n")
        return 1 if found["refused"] else 0

    def _interrupted(self, counts: Counts | None) -> int:
        done = f"{counts.succeeded + counts.failed} of {counts.total} inputs are done" if counts else "listed in part"
        again = "give the command again" + (", without --fresh" if self._args.fresh else "")
        print(f"isolatent: interrupted, {done}; {self._target.folder} keeps them; to go on, {again}", file=sys.stderr)
        return _INTERRUPTED

    def _begin(self, path: Path) -> JobFolder:
        return self._served.begin(self._spec, path) if self._served else create(self._spec, path)

    def _plan(self, folder: JobFolder, on_listed: OnListed | None) -> None:
        plan(folder, on_listed=on_listed, stop=self._stop, modality=self._served.modality if self._served else None)

    def _try(self, folder: JobFolder) -> Counts:
        """Whatever the engine: where the bundle is here, one process does for a few inputs."""
        if self._served:
            return self._served.run(folder, lambda _: None, self._stop)
        return local.run(folder, processes=1, stop=self._stop)

    def _compute(self, folder: JobFolder, watch: _Watch) -> Counts:
        processes = self._args.processes
        if self._served:
            return self._served.run(folder, watch.progress, self._stop)
        if self._args.engine == "local":
            return local.run(folder, processes, watch.progress, self._stop)
        from isolatent_serve.jobs import on_ray  # imports Ray itself, after it has told it to be quiet

        return on_ray.run(folder, self._args.address, processes, watch.progress, self._stop)


def _target(args: argparse.Namespace) -> Target:
    """What --out names. Raises CommandError."""
    out = Path(args.out)
    suffix = out.suffix.lower()
    if suffix not in TARGETS or out.is_dir():
        if suffix and not out.is_dir() and not args.out.endswith("/"):
            names = ", ".join(TARGETS)
            raise CommandError(f"--out {out}: the name must end in {names}, or in / for a folder")
        return Target(out, args.format or "parquet", None)
    if args.format and args.format != TARGETS[suffix]:
        raise CommandError(f"--format {args.format} is for a folder; {out} says its own format")
    if not out.parent.is_dir():
        raise CommandError(f"--out {out}: not in an existing folder; make the folder {out.parent} first")
    return Target(out.with_name(f"{out.name}.job"), TARGETS[suffix], out)


def _spec(args: argparse.Namespace, target: Target, served: Served | None) -> JobSpec:
    """What is to be done. Raises CommandError for what cannot be."""
    outputs = {*args.outputs, *(["embedding"] if target.format == "npy" else [])}
    given: dict[str, Any] = {
        "model": served.place if served else args.model,
        "inputs": args.inputs,
        "outputs": sorted(outputs),
        "format": target.format,
        "column": args.column,
        "shard_items": args.shard_items,
        "batch_items": args.batch_size,
        "device": args.device,
    }
    try:
        return JobSpec.model_validate(given | ({"samples": args.samples} if args.samples else {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise CommandError(f"{' '.join(map(str, first['loc']))}: {first['msg']}") from None


def _report(args: argparse.Namespace, target: Target, listing: Listing, now: int, seconds: float) -> None:
    counts, skipped = listing["counts"], listing["skipped"]
    errors = str(target.errors) if counts["failed"] else None
    if args.json:
        facts = {"out": str(target), **counts, "parts": len(listing["parts"]), "errors": errors, "skipped": skipped}
        print_json(facts | {"now": now, "seconds": round(seconds, 3)})
        return
    took = f"{now} in {seconds:.1f} s" if now else "all were there"
    passed = "".join(f"; skipped {count}: {reason}" for reason, count in skipped.items())
    print(f"{target}: {counts['succeeded']} of {counts['total']} inputs ({took}){passed}")
    if errors:
        print(f"isolatent: {counts['failed']} inputs failed, with reasons in {errors}", file=sys.stderr)


class _Watch:
    """What is shown on the way: a bar with rate and time left, on a terminal only."""

    def __init__(self, show: Any) -> None:
        self._show = show
        self._failed = 0
        self._is_listing = False

    def listed(self, count: int) -> None:
        """So many inputs have been found."""
        if sys.stderr.isatty():
            self._is_listing = True
            sys.stderr.write(f"\r{count} inputs found")

    def end(self) -> None:
        """Leave no line open."""
        if self._is_listing:
            sys.stderr.write("\n")

    def progress(self, progress: Progress) -> None:
        """So far it is."""
        counts, self._is_listing = progress.counts, False
        self._failed = counts.failed
        self._show(min(counts.succeeded + counts.failed + progress.under_way, counts.total), counts.total)

    def words(self, done: int, total: int | None, rate: float) -> str:
        """`[#####     ] 512 of 1024 inputs, 800/s, 1 s left, 3 failed`."""
        width = 20
        filled = width * done // total if total else 0
        failed = f", {self._failed} failed" if self._failed else ""
        return f"[{'#' * filled:{width}}] {_progress.of_inputs(done, total, rate)}{failed}"


@contextmanager
def _watched() -> Iterator[_Watch]:
    watch = _Watch(None)
    with _progress.states(sys.stderr.isatty(), watch.words) as show:
        watch._show = show
        try:
            yield watch
        finally:
            watch.end()


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, the first time; the second time they end the program."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # where no signals come
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def set_once(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, set_once)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
