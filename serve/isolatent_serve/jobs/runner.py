"""Who runs the jobs of a service: one thread, one job after the other, whatever happens in between.

Of several processes that share a directory one has the lock, and runs. When it ends, however it does, the system frees
the lock and ends the job's process; another one, or the next start, goes on with the job where it was.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isolatent._machine import cores
from isolatent_serve.jobs import retention
from isolatent_serve.jobs.child import Child
from isolatent_serve.jobs.folder import JOB, BusyError, JobFolder
from isolatent_serve.jobs.locks import locked_if_free
from isolatent_serve.jobs.plan import create
from isolatent_serve.jobs.rows import JobRow
from isolatent_serve.jobs.spec import JobError, JobLimits, JobSpec
from isolatent_serve.jobs.store import Store
from isolatent_serve.metrics import Metrics
from isolatent_serve.settings import JobSettings, RequestLimits

log = logging.getLogger("isolatent_serve.jobs")

LOOK_SECONDS = 0.5
"""Between two looks at what other processes have written into the store."""
LOCK_SECONDS = 1.0
"""Between two tries to become the one who runs."""
STOP_SECONDS = 2.0
"""For a job to end with the service: what is not on the disk by then is computed again."""
CANCEL_SECONDS = 10.0
"""For a job to end when that was asked for."""
BUSY_SECONDS = 5.0
"""Until a job is tried again that another process works on; the others go on meanwhile."""
CRASHES = 3
"""Ends of a job's process, without a part finished in between, after which the job has failed."""


@dataclass
class _Progress:
    """What the process of a job has said."""

    total: int | None
    succeeded: int
    failed: int
    state: str = ""
    error: str = ""
    busy: bool = False
    parts: int = 0
    first: tuple[int, int, int] | None = None
    """Parts, succeeded and failed inputs when it began."""

    @property
    def is_further(self) -> bool:
        """Whether a part was finished since."""
        return self.first is not None and self.parts > self.first[0]


class _ModelGoneError(JobError):
    """The model of a job is not what it was when the job was made."""


class Runner:
    """The thread. `wake` and `stop` may be called from anywhere, signal handlers among them."""

    def __init__(self, settings: JobSettings, limits: RequestLimits, store: Store, metrics: Metrics) -> None:
        self._settings = settings
        self._limits = limits
        self._store = store
        self._metrics = metrics
        self._processes = settings.processes or max(1, cores() // 2)
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._stopping = False
        self._bell, self._ear = socket.socketpair()  # unlike a lock, safe in signal handlers
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._look_at = 0.0
        self._sweep_at = 0.0
        self._crashes: dict[str, int] = {}
        self._busy_until: dict[str, float] = {}

    def start(self) -> None:
        """Begin to look for jobs."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once."""
        with contextlib.suppress(BlockingIOError, OSError):  # a bell that rings already, or rings no more
            self._bell.send(b"!")

    def stop(self) -> None:
        """Interrupt the job that runs, which waits again, and begin no other."""
        self._stopping = True
        self.wake()

    def join(self) -> None:
        """Wait for the thread to end; `stop` comes before."""
        if self._thread.ident:
            self._thread.join()
        self._bell.close()
        self._ear.close()

    def _run(self) -> None:
        while not self._stopping:
            try:
                with locked_if_free(self._settings.directory / "runner.lock") as is_free:
                    if is_free:
                        self._lead()
            except Exception:  # a full disk, say: it may get better
                log.exception("jobs could not be run; trying again")
            self._rest(LOCK_SECONDS)

    def _lead(self) -> None:
        """Run what waits, until the service ends."""
        waiting = self._store.recover()
        if waiting:
            log.info("jobs that were interrupted wait again: %d", waiting)
        while not self._stopping:
            self._look()
            job = self._store.claim(but=self._busy())
            if job:
                self._do(job)
            else:
                self._rest(LOOK_SECONDS)

    def _rest(self, seconds: float, child: Child | None = None) -> bool:
        """Wait for the bell, or for the child to say something: whether it has."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._ear, selectors.EVENT_READ)
            if child:
                selector.register(child.output, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(seconds)}
        if self._ear.fileno() in ready:
            self._ear.recv(4096)
        return child is not None and child.output in ready

    def _look(self) -> None:
        """Tell the metrics how things are, and clean up, both now and then."""
        now = time.monotonic()
        if now > self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._metrics.jobs(self._store.counts(), self._store.stored_bytes())
        if now > self._sweep_at:
            self._sweep_at = now + retention.SWEEP_SECONDS
            retention.sweep(self._settings.directory, self._store)

    def _do(self, job: JobRow) -> None:
        """One job, until it is over or the service ends."""
        try:
            folder = self._open(job)
        except _ModelGoneError as error:
            self._fail(job, "model_gone", str(error))
            return
        except BusyError as error:
            self._wait_for_other(job, str(error))
            return
        except JobError as error:
            self._fail(job, "not_possible", str(error))
            return
        log.info("job %s: running, for %s", job.id, job.owner or "everybody")
        child = Child(folder.path, self._processes)
        try:
            heard = self._follow(job, child)
            code = child.wait()
        except BaseException:
            child.end(0)
            child.wait(0)
            raise
        self._store.progress(job.id, heard.total, heard.succeeded, heard.failed)
        self._conclude(job, child, heard, code)

    def _open(self, job: JobRow) -> JobFolder:
        """The folder of a job, made if it is not there. Raises JobError when the job cannot be done."""
        path = self._settings.directory / "jobs" / job.id
        spec = JobFolder(path).spec if (path / JOB).exists() else self._spec(job)
        _require_model(job, spec)
        return create(spec, path)

    def _spec(self, job: JobRow) -> JobSpec:
        limits = self._limits
        roots = (job.source,) if job.file else tuple(str(root.resolve()) for root in self._settings.inputs)
        return JobSpec.model_validate(
            {
                "model": Path(job.bundle),
                "inputs": (job.source,),
                "outputs": job.outputs,
                "format": job.format,
                "samples": job.samples,
                "column": job.input.get("column"),
                "device": self._settings.device,
                "shard_items": self._settings.shard_items,
                "limits": JobLimits(
                    item_bytes=limits.item_bytes,
                    pixels=limits.pixels,
                    points=limits.points,
                    decoded_bytes=limits.decoded_bytes,
                    parse_seconds=limits.parse_seconds,
                    parse_megabytes=limits.parse_megabytes,
                    free_bytes=self._settings.free_bytes,
                    roots=roots,
                ),
            }
        )

    def _follow(self, job: JobRow, child: Child) -> _Progress:
        """Hear the child until it has said everything, and end it when that is asked for."""
        heard, save_at = _Progress(job.total, job.succeeded, job.failed), 0.0
        while True:
            events = child.hear() if self._rest(LOOK_SECONDS, child) else []
            if events is None:
                return heard
            for event in events:
                before, succeeded, failed = heard.first, heard.succeeded, heard.failed
                _take(event, heard)
                if before:
                    self._metrics.job_items(heard.succeeded - succeeded, heard.failed - failed)
            now = time.monotonic()
            if events and now > save_at:
                save_at = now + LOOK_SECONDS
                self._store.progress(job.id, heard.total, heard.succeeded, heard.failed)
            if self._stopping:
                child.end(STOP_SECONDS)
            elif self._store.state(job.id) == "cancelling":
                child.end(CANCEL_SECONDS)
            child.press()
            self._look()

    def _conclude(self, job: JobRow, child: Child, heard: _Progress, code: int) -> None:
        """What becomes of a job whose process has ended."""
        if heard.state == "succeeded" and code in (0, 1):
            self._store.finish(job.id, "succeeded")
            log.info("job %s: succeeded, %d inputs, %d of them failed", job.id, heard.total or 0, heard.failed)
        elif self._store.state(job.id) == "cancelling":
            self._store.finish(job.id, "cancelled")
            log.info("job %s: cancelled", job.id)
        elif heard.state == "failed" and heard.busy:
            self._wait_for_other(job, heard.error)
        elif heard.state == "failed":
            self._fail(job, "not_possible", heard.error or "it could not be done; ask who runs the service")
        elif self._stopping or heard.state == "cancelled":  # by a signal to all, such as Ctrl-C
            self._store.requeue(job.id)
            log.info("job %s: interrupted; it goes on when the service runs again", job.id)
        else:
            self._crashed(job, child, heard, code)

    def _crashed(self, job: JobRow, child: Child, heard: _Progress, code: int) -> None:
        """Try again, unless that has been in vain."""
        crashes = 1 if heard.is_further else self._crashes.pop(job.id, 0) + 1
        log.error("job %s: its process ended with %d: %s", job.id, code, child.last_words() or "no word")
        if crashes >= CRASHES:
            self._fail(job, "crashed", "its process ended again and again; ask who runs the service: its log says more")
            return
        self._crashes[job.id] = crashes
        self._store.requeue(job.id)
        self._rest(LOCK_SECONDS)

    def _wait_for_other(self, job: JobRow, reason: str) -> None:
        """Let a job wait while the process of a service that was killed has yet to end: other jobs do not."""
        log.info("job %s: waits: %s", job.id, reason)
        self._busy_until[job.id] = time.monotonic() + BUSY_SECONDS
        self._store.requeue(job.id)

    def _busy(self) -> list[str]:
        """The jobs that others work on, as far as is known."""
        now = time.monotonic()
        self._busy_until = {job: until for job, until in self._busy_until.items() if until > now}
        return list(self._busy_until)

    def _fail(self, job: JobRow, code: str, reason: str) -> None:
        detail = self._shown(job, reason)
        log.warning("job %s: failed: %s", job.id, reason)
        self._store.finish(job.id, "failed", {"code": code, "detail": detail})

    def _shown(self, job: JobRow, reason: str) -> str:
        """`reason` without the places where the service keeps things: clients read it."""
        uploaded = f"{self._settings.directory.absolute()}/files/"
        places = [
            f"{self._settings.directory.absolute()}/jobs/",
            uploaded,
            *(f"{root.resolve()}/" for root in self._settings.inputs),
        ]
        places.append(f"{Path(job.bundle).parent}/")
        for place in places:
            reason = reason.replace(place, "")
        return reason


def _require_model(job: JobRow, spec: JobSpec) -> None:
    """Raise _ModelGoneError unless the model is as it was when the job was made."""
    try:
        digest = spec.model_digest()
    except JobError as error:
        raise _ModelGoneError(str(error)) from None
    if digest != job.digest:
        raise _ModelGoneError(
            f"{job.bundle}: not {job.model} {job.version} any more; make a job for what is served now"
        )


def _take(event: dict[str, Any], heard: _Progress) -> None:
    heard.state = str(event.get("state", heard.state))
    heard.error = str(event.get("error", heard.error))
    heard.busy = bool(event.get("busy", heard.busy))
    if event.get("total") is not None:  # before that it only lists
        heard.total, heard.succeeded, heard.failed = event["total"], event["succeeded"], event["failed"]
        heard.parts = event["shards"][0]
        heard.first = heard.first or (heard.parts, heard.succeeded, heard.failed)
