"""The jobs of _jobs for asyncio: the same methods, awaited, and `async for` over what is iterated."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self, cast

from isolatent import _jobs_answers, _jobs_base, _jobs_parts, _jobs_wire, _progress
from isolatent._async import AsyncDriver
from isolatent._errors import APIStatusError, IsolatentError
from isolatent._files import AsyncFiles
from isolatent._files_pack import packed
from isolatent._files_transfer import Download
from isolatent._jobs_answers import Part
from isolatent._jobs_base import BaseJob, Keeping, Waiting
from isolatent._jobs_wire import JobInput
from isolatent._progress import Progress
from isolatent.types import JobFormat, JobItemError, JobOutput, JobRow, JobState, StoredFile


class AsyncJobs:
    """Jobs of this key. The service does them in the background, whether a client is there or not."""

    def __init__(self, driver: AsyncDriver, files: AsyncFiles) -> None:
        self._driver, self._files = driver, files

    async def create(
        self,
        input: JobInput,  # noqa: A002 (the API's own word)
        model: str | None = None,
        *,
        outputs: Sequence[JobOutput] = (),
        format: JobFormat = "parquet",  # noqa: A002
        samples: int | None = None,
        column: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        progress: Progress = False,
    ) -> AsyncJob:
        """Begin a job over many files, and return it at once.

        `input` is the path of a folder, an archive (zip, tar) or a Parquet file here, which is uploaded; a file that
        `client.files` uploaded, or its id; or {"path": ...}, a path or pattern on the service's machine. `outputs` are
        computed besides the posterior: embedding, reconstruction_error, consistency (with `samples` transformed copies
        of each input). `column` of a Parquet file holds the inputs or their paths, where several could. `progress` is
        that of the upload, see `client.files`.

        No failure on the way makes two jobs of one call. With an `idempotency_key` of your own that holds for several
        calls, and for programs that start again: the same key and the same request are the same job; a path must still
        have the same content. Raises ConflictError for the same key with another request.
        """
        key = idempotency_key or _jobs_base.new_key()
        given, stored = _jobs_wire.reference(input), None
        if given is None:
            path = cast("str | os.PathLike[str]", input)
            stored = await self._stored(path, progress, again=idempotency_key is not None)
            given = {"file": stored.id}
        given |= {"column": column} if column else {}
        call = _jobs_wire.create(given, model, outputs, format, samples, metadata, key)
        try:
            return AsyncJob(_jobs_answers.job(await self._driver.send(call), call), self._driver)
        except APIStatusError:
            if stored and idempotency_key is None:  # nobody else knows of it
                with suppress(IsolatentError):
                    await self._files.delete(stored.id)
            raise

    async def get(self, job_id: str) -> AsyncJob:
        """One job, of this program or another. Raises NotFoundError."""
        call = _jobs_wire.job(job_id)
        return AsyncJob(_jobs_answers.job(await self._driver.send(call), call), self._driver)

    async def list(self, *, state: JobState | None = None) -> AsyncIterator[AsyncJob]:
        """All jobs, or those in one state, newest first, asked for page by page."""
        token = None
        while True:
            call = _jobs_wire.jobs(token, state)
            page = _jobs_answers.jobs(await self._driver.send(call), call)
            for facts in page.entries:
                yield AsyncJob(facts, self._driver)
            if not (token := page.next):
                return

    async def delete(self, job_id: str) -> None:
        """Delete a job that is over, with its results. Raises NotFoundError, and ConflictError before it is over."""
        await self._driver.send(_jobs_wire.delete_job(job_id))

    async def _stored(self, path: str | os.PathLike[str], progress: Progress, *, again: bool) -> StoredFile:
        """The uploaded file for a path; `again`: perhaps an earlier call has uploaded it."""
        with ExitStack() as stack:
            file = await asyncio.to_thread(stack.enter_context, packed(path))
            known = await self._files._same(file) if again else None
            return known or await self._files._send(file, progress)


class AsyncJob(BaseJob):
    """One job. Its attributes are what the service said when it was last asked; `refresh` and `wait` ask again.

    Results are those of finished parts; while a job runs, or where it did not succeed, `results`, `table` and
    `download` raise JobError unless `partial` is true.
    """

    def __init__(self, facts: Mapping[str, Any], driver: AsyncDriver) -> None:
        super().__init__(facts)
        self._driver = driver

    async def refresh(self) -> Self:
        """Ask how it is. Raises NotFoundError once it is deleted."""
        await self._look(None)
        return self

    async def wait(self, timeout: float | None = 600, *, progress: Progress = False) -> Self:
        """Wait until it is over, asking as often as the service wants. Returns the job, succeeded.

        Inputs that failed do not fail the job: see `counts.failed` and `errors`. A service that restarts meanwhile is
        waited for. Raises JobFailed, JobCancelled, and JobTimeout after `timeout` seconds (None: never); the job goes
        on then.
        """
        waiting = Waiting(self, timeout)
        with _jobs_base.watching(progress) as look:
            asked: float | None = 0
            while not self.is_over:
                await asyncio.sleep(waiting.pause(asked))
                try:
                    asked = await self._look(waiting.question(self._driver.timeout))
                except IsolatentError as error:
                    asked = waiting.missed(error)
                look(self)
            look(self)
        self._settled(partial=False)
        return self

    async def cancel(self) -> Self:
        """End it. Parts that are finished stay."""
        call = _jobs_wire.cancel(self.id)
        self._facts = _jobs_answers.job(await self._driver.send(call), call)
        return self

    async def delete(self) -> None:
        """Delete it with its results, once it is over. Raises ConflictError before."""
        await self._driver.send(_jobs_wire.delete_job(self.id))

    async def results(self, *, partial: bool = False) -> AsyncIterator[JobRow]:
        """The results one by one, each with the id of its input; a part at a time is in memory.

        Raises UnsupportedError without pyarrow, unless the job was made with format="jsonl".
        """
        await self._require(partial=partial)
        _jobs_parts.require_arrow(self)
        async for row in self._rows(partial=partial):
            yield row

    async def table(self, *, partial: bool = False) -> Any:
        """The results as one pyarrow.Table: id, mean, variance, kl, and what was asked for.

        Raises UnsupportedError without pyarrow.
        """
        await self._require(partial=partial)
        contents = [await self._content(part) for part in await self._parts()]
        return await asyncio.to_thread(_jobs_parts.table, self, contents)

    async def errors(self) -> AsyncIterator[JobItemError]:
        """The inputs without results, with the reasons; those of finished parts while the job runs."""
        with tempfile.TemporaryFile() as file:
            call = _jobs_wire.errors(self.id)
            answer = await self._driver.send(call, transfer=Download(file))
            file.seek(0)
            for error in _jobs_answers.item_errors(file, answer.url):
                yield error

    async def download(
        self, folder: str | os.PathLike[str], *, partial: bool = False, progress: Progress = False
    ) -> list[Path]:
        """The parts as files part-000000.parquet ... in a folder, which is made; returns their paths.

        What an earlier call has brought is kept, a file that broke off is taken up where it ended, and each is checked
        by its sha256. `progress` is True for a line on stderr, or a function of the bytes received and of all bytes.
        """
        await self._require(partial=partial)
        into, parts = Path(folder), await self._parts()
        into.mkdir(parents=True, exist_ok=True)
        total = sum(part.bytes for part in parts)
        with _progress.shown(progress, total, _progress.of_bytes) as report:
            return [await self._kept(part, into, report) for part in parts]

    async def _look(self, timeout: float | None) -> float | None:
        """Ask how it is; returns after how many seconds the service wants to be asked again."""
        call = _jobs_wire.job(self.id, timeout)
        answer = await self._driver.send(call)
        self._facts = _jobs_answers.job(answer, call)
        return _jobs_answers.pause(answer)

    async def _require(self, *, partial: bool) -> None:
        """Raise JobError unless it has the results that are asked for."""
        if not self.is_over:
            await self.refresh()
        self._settled(partial=partial)

    async def _rows(self, *, partial: bool) -> AsyncIterator[JobRow]:
        count = 0
        for part in await self._parts():
            for row in _jobs_parts.rows(self, await self._content(part)):
                count += 1
                yield row
        if not partial and count != self.counts.succeeded:
            raise _jobs_base.incomplete(self, count)

    async def _parts(self) -> list[Part]:
        call = _jobs_wire.parts(self.id)
        return _jobs_answers.parts(await self._driver.send(call), call)

    async def _content(self, part: Part) -> bytes:
        answer = await self._driver.send(_jobs_wire.part(self.id, part.index))
        return _jobs_base.checked(answer.content, part, answer.url)

    async def _kept(self, part: Part, folder: Path, report: Any) -> Path:
        keeping = Keeping(folder, self, part)
        if await asyncio.to_thread(keeping.is_there):
            report(part.bytes)
            return keeping.path
        call, url = _jobs_wire.part(self.id, part.index), ""
        while True:
            with keeping.file() as file:
                download = Download(file, report)
                if file.tell() < part.bytes:
                    url = (await self._driver.send(call, transfer=download)).url
            if await asyncio.to_thread(keeping.finish, url):
                return keeping.path
            report(-part.bytes)
