"""Files that are kept by the service for jobs: `client.files`, and its twin for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

from isolatent import _jobs_answers, _jobs_wire, _progress
from isolatent._async import AsyncDriver
from isolatent._errors import APIResponseError
from isolatent._files_pack import Packed, packed
from isolatent._files_transfer import Upload
from isolatent._progress import Progress
from isolatent._sync import Driver
from isolatent._wire import Call
from isolatent.types import StoredFile


class Files:
    """Files of this key that the service keeps for jobs, until they expire.

    `progress` is True for a line on stderr, or a function of the bytes sent and of all bytes.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def upload(self, path: str | os.PathLike[str], *, progress: Progress = False) -> StoredFile:
        """Send an archive, a Parquet file, or the files of a folder, which are packed into a temporary zip file.

        A file of any size goes piece by piece; the client's timeout is for each piece. Raises InputError for what
        cannot be read, RequestTooLargeError for more than the service takes.
        """
        with packed(path) as file:
            return self._send(file, progress)

    def get(self, file_id: str) -> StoredFile:
        """One file. Raises NotFoundError."""
        call = _jobs_wire.file(file_id)
        return _jobs_answers.stored_file(self._driver.send(call), call)

    def list(self) -> Iterator[StoredFile]:
        """All files, newest first, asked for page by page."""
        token = None
        while True:
            call = _jobs_wire.files(token)
            page = _jobs_answers.stored_files(self._driver.send(call), call)
            yield from page.entries
            if not (token := page.next):
                return

    def delete(self, file_id: str) -> None:
        """Delete a file. Raises NotFoundError, and ConflictError while a job needs it."""
        self._driver.send(_jobs_wire.delete_file(file_id))

    def _send(self, file: Packed, progress: Progress) -> StoredFile:
        with _sending(file, progress) as (call, upload):
            answer = self._driver.send(call, transfer=upload)
            return _arrived(_jobs_answers.stored_file(answer, call), upload)

    def _same(self, file: Packed) -> StoredFile | None:
        """One that is there already with the same content."""
        sha256 = file.sha256()
        return next((each for each in self.list() if each.sha256 == sha256), None)


class AsyncFiles:
    """Files of this key that the service keeps for jobs, until they expire.

    `progress` is True for a line on stderr, or a function of the bytes sent and of all bytes.
    """

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    async def upload(self, path: str | os.PathLike[str], *, progress: Progress = False) -> StoredFile:
        """Send an archive, a Parquet file, or the files of a folder, which are packed into a temporary zip file.

        A file of any size goes piece by piece; the client's timeout is for each piece. Raises InputError for what
        cannot be read, RequestTooLargeError for more than the service takes.
        """
        with ExitStack() as stack:
            file = await asyncio.to_thread(stack.enter_context, packed(path))
            return await self._send(file, progress)

    async def get(self, file_id: str) -> StoredFile:
        """One file. Raises NotFoundError."""
        call = _jobs_wire.file(file_id)
        return _jobs_answers.stored_file(await self._driver.send(call), call)

    async def list(self) -> AsyncIterator[StoredFile]:
        """All files, newest first, asked for page by page."""
        token = None
        while True:
            call = _jobs_wire.files(token)
            page = _jobs_answers.stored_files(await self._driver.send(call), call)
            for entry in page.entries:
                yield entry
            if not (token := page.next):
                return

    async def delete(self, file_id: str) -> None:
        """Delete a file. Raises NotFoundError, and ConflictError while a job needs it."""
        await self._driver.send(_jobs_wire.delete_file(file_id))

    async def _send(self, file: Packed, progress: Progress) -> StoredFile:
        with _sending(file, progress) as (call, upload):
            answer = await self._driver.send(call, transfer=upload)
            return _arrived(_jobs_answers.stored_file(answer, call), upload)

    async def _same(self, file: Packed) -> StoredFile | None:
        """One that is there already with the same content."""
        sha256 = await asyncio.to_thread(file.sha256)
        async for each in self.list():
            if each.sha256 == sha256:
                return each
        return None


@contextmanager
def _sending(file: Packed, progress: Progress) -> Iterator[tuple[Call, Upload]]:
    """The request for a file, and the body that goes with it."""
    with _progress.shown(progress, file.size, _progress.of_bytes) as report:
        yield _jobs_wire.upload(file.filename, file.media_type), Upload(file.path, file.size, report)


def _arrived(stored: StoredFile, upload: Upload) -> StoredFile:
    """The file, when it is there as it was sent. Raises APIResponseError."""
    if stored.sha256 != upload.sha256:
        what = f"{stored.filename} arrived as another file (sha256 {stored.sha256}, sent {upload.sha256})"
        raise APIResponseError(f"{what}; was it changed meanwhile? Upload it again", url="/v1/files")
    return stored
