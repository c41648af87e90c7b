"""A file that arrives in pieces: counted and hashed on its way to the disk, and gone again unless it is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from isolatent_serve.jobs.disk import sync
from isolatent_serve.problems import Problem
from isolatent_serve.settings import JobSettings

UNFINISHED = ".unfinished"
"""Ends the name of a file that is arriving."""

PART = "file"
"""The name of the part that is the file, in a form."""

FORM_BYTES = 64 * 2**10
"""Of a form around the file."""

_SYNC_BYTES = 64 * 2**20  # as they come: all of them at the end would take longer than anybody waits
_HEADER_BYTES = 8192


class Spool:
    """The file at `path` while it arrives. Blocks; methods may be called from any thread, one at a time or not."""

    def __init__(self, path: Path, settings: JobSettings) -> None:
        self.path = path
        self.bytes = 0
        self._settings = settings
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()
        self._file = path.open("xb")

    @property
    def sha256(self) -> str:
        """Of what has arrived, hexadecimal."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Add to the file. Raises Problem `request_too_large` or `storage_full`."""
        with self._lock:
            if self._file.closed:  # discarded meanwhile
                return
            before, self.bytes = self.bytes, self.bytes + len(data)
            require_size(self.bytes, self._settings)
            require_room(self.path.parent, len(data), self._settings)
            self._file.write(data)
            self._digest.update(data)
            if before // _SYNC_BYTES != self.bytes // _SYNC_BYTES:
                self._sync()

    def finish(self) -> None:
        """Bring it to the disk. Raises Problem `empty_body`."""
        with self._lock:
            if not self.bytes:
                raise Problem("empty_body", "the file is empty; send a zip, tar, tar.gz or Parquet file")
            self._sync()
            self._file.close()

    def keep(self, place: Path) -> None:
        """Give the finished file its name."""
        with self._lock:
            self.path.rename(place)
            sync(place.parent)

    def discard(self) -> None:
        """Remove it, if it has not been kept."""
        with self._lock:
            self._file.close()
            self.path.unlink(missing_ok=True)

    def _sync(self) -> None:
        self._file.flush()
        os.fdatasync(self._file.fileno())


class Form:
    """multipart/form-data that arrives in pieces: its one part named `file` goes to a spool."""

    def __init__(self, content_type: str, spool: Spool, settings: JobSettings) -> None:
        """Raises Problem `malformed_multipart`."""
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise _malformed("the Content-Type has no boundary; let the HTTP client write it")
        self.filename = ""
        self._settings = settings
        self._received = 0
        self._parts = 0
        self._ended = False
        self._name, self._value, self._disposition = bytearray(), bytearray(), b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_field": lambda data, start, end: self._add(self._name, data[start:end]),
                    "on_header_value": lambda data, start, end: self._add(self._value, data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._begin,
                    "on_part_data": lambda data, start, end: spool.write(data[start:end]),
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(f"{error}; let the HTTP client write the Content-Type") from None

    def write(self, data: bytes) -> None:
        """Take the next piece. Raises Problem `malformed_multipart`, and those of the spool."""
        self._received += len(data)
        require_size(self._received - FORM_BYTES, self._settings)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(f"{error}; send it with an HTTP client's form support") from None

    def finish(self) -> None:
        """Check that all of it was there. Raises Problem `malformed_multipart`."""
        if not self._ended:
            raise _malformed("the last boundary is missing; send the whole body")
        if not self._parts:
            raise _malformed(f"no part named `{PART}`; send the file as one, as in curl -F {PART}=@FILE")

    def _add(self, header: bytearray, data: bytes) -> None:
        header.extend(data)
        if len(header) > _HEADER_BYTES:
            raise _malformed(f"a header of more than {_HEADER_BYTES} bytes; send a shorter file name")

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _begin(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != PART.encode() or self._parts:
            raise _malformed(f"expected one part, named `{PART}`; send each file in a request of its own")
        self.filename = options.get(b"filename", b"").decode(errors="replace")
        self._parts += 1

    def _end(self) -> None:
        self._ended = True


def require_size(size: int, settings: JobSettings) -> None:
    """Raise Problem `request_too_large` for a file of more bytes than one may have."""
    if size > settings.upload_bytes:
        raise Problem(
            "request_too_large",
            f"the limit is {settings.upload_bytes} bytes per file; send several, and a job for each",
        )


def require_room(folder: Path, size: int, settings: JobSettings) -> None:
    """Raise Problem `storage_full` when so many bytes more would leave too few on the disk."""
    if shutil.disk_usage(folder).free - size < settings.free_bytes:
        raise full("the disk of the service is full")


def full(why: str) -> Problem:
    """The problem of a file for which there is no room."""
    return Problem("storage_full", f"{why}; delete files and jobs that are not needed any more, or ask who runs it")


def _malformed(detail: str) -> Problem:
    return Problem("malformed_multipart", detail)
