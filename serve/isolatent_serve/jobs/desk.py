"""What the routes talk to: the files and jobs of one service, and whoever runs them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from isolatent_export import Bundle
from isolatent_export.bundle import MANIFEST, file_digest
from isolatent_serve import consistency
from isolatent_serve.jobs import results
from isolatent_serve.jobs.paths import resolve
from isolatent_serve.jobs.rows import FileRow, JobRow
from isolatent_serve.jobs.runner import Runner
from isolatent_serve.jobs.schemas import FileInput, JobRequest, PathInput
from isolatent_serve.jobs.spec import OUTPUTS
from isolatent_serve.jobs.store import ConflictError, FullError, GoneError, InUseError, NotOverError, open_store
from isolatent_serve.jobs.uploads import Uploads
from isolatent_serve.metrics import Metrics
from isolatent_serve.options import Options
from isolatent_serve.problems import Problem
from isolatent_serve.settings import JobSettings, RequestLimits

RETRY_SECONDS = 10
"""When there may be room for another job."""

_THREADS = 4

T = TypeVar("T")


class Desk:
    """Files and jobs of each owner, who is the name of a key, or "" without keys.

    Raises Problem, where it says nothing else: `file_not_found`, `job_not_found` or `part_not_found` for what is not
    there, or is somebody else's.
    """

    def __init__(self, settings: JobSettings, limits: RequestLimits, metrics: Metrics) -> None:
        """Raises StoreError when the directory cannot be used."""
        self._settings = settings
        self._store = open_store(settings)
        self._pool = ThreadPoolExecutor(_THREADS, "jobs")
        self.uploads = Uploads(settings.directory / "files", settings, limits, self._store, self.call)
        self._runner = Runner(settings, limits, self._store, metrics)

    def start(self) -> None:
        """Begin to run jobs, as soon as no other process of the service does."""
        self._runner.start()

    def drain(self) -> None:
        """Begin no more jobs, and interrupt the one that runs. Safe in a signal handler."""
        self._runner.stop()

    async def close(self) -> None:
        """Wait for the runner to end."""
        self._runner.stop()
        await asyncio.to_thread(self._runner.join)
        self._pool.shutdown()
        self._store.close()

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """What `function`, which may block, returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *arguments))

    # Files

    async def file(self, owner: str, identity: str) -> FileRow:
        """One file."""
        return _require(await self.call(self._store.file, owner, identity), "file", identity)

    async def files(self, owner: str, most: int, before: int | None) -> list[FileRow]:
        """At most so many files, the newest first, made before number `before`."""
        return await self.call(self._store.files, owner, most, before)

    async def remove_file(self, owner: str, identity: str) -> None:
        """Remove a file. Raises Problem `file_in_use`, too."""
        try:
            row = _require(await self.call(self._store.remove_file, owner, identity), "file", identity)
        except InUseError as user:
            detail = f"{user} needs it; cancel that job, or wait until it is over"
            raise Problem("file_in_use", detail) from None
        await self.call(self.uploads.path(row).unlink, True)

    # Jobs

    async def create(
        self, owner: str, request: JobRequest, bundle: Callable[[str | None], Bundle], key: str | None
    ) -> tuple[JobRow, bool]:
        """A new job, and True; or the one that was made with the same idempotency key, and False.

        `bundle` finds the model by its name. Raises Problem: `idempotency_conflict`, `file_not_found`, `path_refused`,
        `consistency_unavailable`, `queue_full`, and those of `bundle`.
        """
        asked = hashlib.sha256(request.model_dump_json(exclude_none=True).encode()).hexdigest()
        try:
            if key is not None and (known := await self.call(self._store.job_of_key, owner, key, asked)):
                return known, False
            row = await self._row(owner, request, bundle(request.model), key, asked)
            row, is_new = await self.call(self._store.add_job, row, self._settings.pending)
        except ConflictError:
            detail = "this Idempotency-Key came with another request before; make up another one for this"
            raise Problem("idempotency_conflict", detail) from None
        except FullError:
            detail = f"{self._settings.pending} jobs wait or run already; wait until some are over, or cancel them"
            raise Problem("queue_full", detail, headers={"Retry-After": str(RETRY_SECONDS)}) from None
        except GoneError:
            raise _not_found("file", str(row.file)) from None
        self._runner.wake()
        return row, is_new

    async def job(self, owner: str, identity: str) -> JobRow:
        """One job."""
        return _require(await self.call(self._store.job, owner, identity), "job", identity)

    async def jobs(self, owner: str, most: int, before: int | None, state: str | None) -> list[JobRow]:
        """At most so many jobs, the newest first, made before number `before`, all or of one state."""
        return await self.call(self._store.jobs, owner, most, before, state)

    async def cancel(self, owner: str, identity: str) -> JobRow:
        """Ask for the end of a job; one that is over stays as it is."""
        row = _require(await self.call(self._store.cancel, owner, identity), "job", identity)
        self._runner.wake()
        return row

    async def remove_job(self, owner: str, identity: str) -> None:
        """Remove a job and its results. Raises Problem `job_not_over`, too."""
        try:
            row = _require(await self.call(self._store.remove_job, owner, identity), "job", identity)
        except NotOverError as state:
            raise Problem("job_not_over", f"it is {state}; cancel it, and wait until it is over") from None
        await self.call(results.remove, self.folder(row))

    def folder(self, row: JobRow) -> Path:
        """Where a job and its results are."""
        return self._settings.directory / "jobs" / row.id

    async def _row(self, owner: str, request: JobRequest, bundle: Bundle, key: str | None, asked: str) -> JobRow:
        wanted = request.outputs or []
        samples = request.samples or Options.samples
        if "consistency" in wanted:
            consistency.of(bundle, samples)
        given = FileInput(file=request.input) if isinstance(request.input, str) else request.input
        file = await self.file(owner, given.file) if isinstance(given, FileInput) else None
        return JobRow(
            id=f"job-{uuid4().hex}",
            owner=owner,
            model=bundle.manifest.name,
            version=bundle.manifest.version,
            bundle=str(bundle.path.absolute()),
            digest=await self.call(file_digest, bundle.path / MANIFEST),
            input=given.model_dump(exclude_none=True),
            source=str(self.uploads.path(file)) if file else await self.call(self._resolve, given),
            file=file.id if file else None,
            outputs=tuple(name for name in OUTPUTS if name == "posterior" or name in wanted),
            format=request.format or "parquet",
            samples=samples,
            metadata=request.metadata or {},
            created=time.time(),
            key=key,
            request=asked,
        )

    def _resolve(self, given: PathInput) -> str:
        return resolve(given.path, self._settings.inputs)


def _require(row: T | None, what: str, identity: str) -> T:
    if row is None:
        raise _not_found(what, identity)
    return row


def _not_found(what: str, identity: str) -> Problem:
    detail = f"no {what} {identity[:80]!r}; GET /v1/{what}s lists those that there are"
    return Problem(f"{what}_not_found", detail)
