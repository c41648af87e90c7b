"""Uploaded files: streamed to the disk within limits, and kept when they are what a job can read."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from starlette.requests import ClientDisconnect, Request

from isolatent_export.inputs import InputError
from isolatent_serve import bodies, exchange
from isolatent_serve.jobs import kinds
from isolatent_serve.jobs.rows import FileRow
from isolatent_serve.jobs.spool import FORM_BYTES, UNFINISHED, Form, Spool, full, require_room, require_size
from isolatent_serve.jobs.store import FullError, Store
from isolatent_serve.problems import Problem, at
from isolatent_serve.settings import JobSettings, RequestLimits

BLOCK_BYTES = 256 * 2**10
"""What is handed to the disk at a time, and held in memory of an upload."""
RETRY_SECONDS = 5
NAME_LENGTH = 255

Call = Callable[..., Awaitable[Any]]
"""(function, *arguments) -> what it returns, computed on another thread."""


class Uploads:
    """The files below `folder`, and how more of them come. `call` runs what blocks."""

    def __init__(self, folder: Path, settings: JobSettings, limits: RequestLimits, store: Store, call: Call) -> None:
        self._folder = folder
        self._settings = settings
        self._limits = limits
        self._store = store
        self._call = call
        self._arriving = 0

    def path(self, row: FileRow) -> Path:
        """Where a file is."""
        return self._folder / f"{row.id}{row.suffix}"

    async def take(self, request: Request, owner: str) -> FileRow:
        """Keep the file that a request brings, once all of it is there.

        Raises Problem: `unsupported_media_type`, `request_too_large`, `storage_full`, `queue_full`, `empty_body`,
        `malformed_multipart` or `undecodable`; the exchange ends with `body_timeout` when it is too slow.
        """
        announced, is_form = int(request.headers.get("Content-Length", "0")), _is_form(request)
        require_size(announced - (FORM_BYTES if is_form else 0), self._settings)
        with self._arrival():
            await self._require_place(announced)
            identity = f"file-{uuid4().hex}"
            spool = await self._call(Spool, self._folder / f"{identity}{UNFINISHED}", self._settings)
            try:
                form = Form(request.headers["Content-Type"], spool, self._settings) if is_form else None
                await self._receive(request, form.write if form else spool.write)
                name = form.filename if form else request.query_params.get("filename", "")
                if form:
                    form.finish()
                return await self._keep(spool, identity, name, owner)
            finally:
                await self._call(spool.discard)

    @contextlib.contextmanager
    def _arrival(self) -> Iterator[None]:
        """Be one of those that arrive until the block ends. Raises Problem when there are as many as there may be."""
        if self._arriving >= self._settings.uploads:
            detail = f"{self._arriving} files are arriving already; try again in {RETRY_SECONDS} s"
            raise Problem("queue_full", detail, headers={"Retry-After": str(RETRY_SECONDS)})
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    async def _require_place(self, announced: int) -> None:
        """Raise Problem for a file of so many bytes that there is no room for."""
        if await self._call(self._store.stored_bytes) + announced > self._settings.stored_bytes:
            raise full(f"uploaded files may have {self._settings.stored_bytes} bytes together")
        await self._call(require_room, self._folder, announced, self._settings)

    async def _receive(self, request: Request, write: Callable[[bytes], None]) -> None:
        """Hand the body over in blocks, as fast as the disk takes them."""
        watched, now = exchange.of(request), asyncio.get_running_loop().time
        end, more = now() + self._settings.upload_seconds, True
        block, size = [], 0
        while more:
            watched.limit(min(self._limits.body_seconds, end - now()), self._too_slow)
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            block.append(message.get("body", b""))
            size += len(block[-1])
            if size >= BLOCK_BYTES or not more:
                await self._call(write, b"".join(block))
                block, size = [], 0
        watched.limit(self._limits.deadline_seconds, self._too_late)

    async def _keep(self, spool: Spool, identity: str, name: str, owner: str) -> FileRow:
        await self._call(spool.finish)
        try:
            suffix = await self._call(kinds.suffix, spool.path)
        except InputError as error:
            raise at("", error) from None
        now = time.time()
        row = FileRow(
            id=identity,
            owner=owner,
            filename=_shown(name) or f"{identity}{suffix}",
            suffix=suffix,
            bytes=spool.bytes,
            sha256=spool.sha256,
            created=now,
            expires=now + self._settings.retention_days * 86400,
        )
        await self._call(self._settle, spool, row)
        return row

    def _settle(self, spool: Spool, row: FileRow) -> None:
        """Keep a file and what is known of it, or neither. In one go: whoever waits for it may leave."""
        spool.keep(self.path(row))
        try:
            self._store.add_file(row, self._settings.stored_bytes)
        except BaseException as error:
            self.path(row).unlink()
            if isinstance(error, FullError):
                raise full(f"uploaded files may have {self._settings.stored_bytes} bytes together") from None
            raise

    def _too_slow(self) -> Problem:
        limit, stall = self._settings.upload_seconds, self._limits.body_seconds
        detail = f"not all of it in {limit:g} s, or nothing of it for {stall:g} s; send faster, or smaller files"
        return Problem("body_timeout", detail)

    def _too_late(self) -> Problem:
        return Problem("deadline", f"not on the disk within {self._limits.deadline_seconds:g} s; try again later")


def _is_form(request: Request) -> bool:
    """Whether the body is a form rather than the file. Raises Problem `unsupported_media_type`."""
    bodies.require_uncompressed(request)
    given = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if given != "multipart/form-data" and given not in kinds.MEDIA_TYPES:
        got = f"Content-Type {given!r}" if given else "no Content-Type"
        expected = f"multipart/form-data, {', '.join(kinds.MEDIA_TYPES)}"
        raise Problem("unsupported_media_type", f"{got}: send one of {expected}")
    return given == "multipart/form-data"


def _shown(name: str) -> str:
    """The last part of a file's name, without what cannot be shown."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(each for each in last if each.isprintable())[:NAME_LENGTH]
