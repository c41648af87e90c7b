"""Bodies that are too large for memory, on their way between a file and the service, piece by piece.

The client's timeout counts from the last piece here, not from the first: a transfer may take as long as it moves.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

from isolatent._retry import Attempts

PIECE = 2**18

Report = Callable[[int], object]
"""Takes how many more bytes have gone; fewer than 0 where an attempt starts over."""


class Transfer(Protocol):
    """What a request sends from a file, or where its answer goes."""

    def headers(self) -> dict[str, str]:
        """Headers of the next attempt."""

    def body(self, attempts: Attempts) -> Iterator[bytes] | None:
        """What to send, if anything."""

    def body_async(self, attempts: Attempts) -> AsyncIterator[bytes] | None:
        """The same for asyncio."""

    def accept(self, status: int) -> bool:
        """Whether pieces of the answer go to `write`; else it is read whole."""

    def write(self, piece: bytes) -> None:
        """Keep a piece of the answer. May run in a thread."""

    def note(self, piece: bytes, attempts: Attempts) -> None:
        """Report a piece that has gone or is kept, and count the time anew. Runs where the caller does."""


def _nothing(_count: int) -> None:
    """Report nothing."""


class Upload:
    """A file as the body of a request, read anew for each attempt. `sha256` is that of what was sent last."""

    def __init__(self, path: Path, size: int, report: Report) -> None:
        self._path, self._size, self._report = path, size, report
        self._hash = hashlib.sha256()
        self._sent = 0

    @property
    def sha256(self) -> str:
        """In hexadecimal digits."""
        return self._hash.hexdigest()

    def headers(self) -> dict[str, str]:
        """The length, so that a service can refuse before it has read everything."""
        return {"Content-Length": str(self._size)}

    def body(self, attempts: Attempts) -> Iterator[bytes]:
        """The pieces. No more than the length, should the file grow meanwhile."""
        self._restart()
        with self._path.open("rb") as file:
            while piece := file.read(min(PIECE, self._size - self._sent)):
                yield piece
                self.note(piece, attempts)

    async def body_async(self, attempts: Attempts) -> AsyncIterator[bytes]:
        """The pieces, read in a thread."""
        self._restart()
        with await asyncio.to_thread(self._path.open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, min(PIECE, self._size - self._sent)):
                yield piece
                self.note(piece, attempts)

    def accept(self, status: int) -> bool:  # noqa: ARG002
        """The answer is short."""
        return False

    def write(self, piece: bytes) -> None:
        """Never called."""

    def note(self, piece: bytes, attempts: Attempts) -> None:
        """Report a piece that has gone."""
        self._hash.update(piece)
        self._sent += len(piece)
        self._report(len(piece))
        attempts.renew()

    def _restart(self) -> None:
        self._report(-self._sent)
        self._hash, self._sent = hashlib.sha256(), 0


class Download:
    """The answer into a file that is open for writing, from where it ends: broken connections are taken up there."""

    def __init__(self, file: IO[bytes], report: Report = _nothing) -> None:
        self._file, self._report = file, report
        self._furthest = self._file.seek(0, 2)
        self._report(self._furthest)

    def headers(self) -> dict[str, str]:
        """The rest only. As it is: a proxy's compression would not fit the lengths."""
        have = self._file.tell()
        return {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})

    def body(self, attempts: Attempts) -> None:  # noqa: ARG002
        """Nothing is sent."""
        return

    def body_async(self, attempts: Attempts) -> None:  # noqa: ARG002
        """Nothing is sent."""
        return

    def accept(self, status: int) -> bool:
        """Take a part (206) as the rest, and a whole (200) from the start."""
        if status == 200:
            self._report(-self._file.tell())
            self._file.seek(0)
            self._file.truncate()
        return status in (200, 206)

    def write(self, piece: bytes) -> None:
        """Append the piece."""
        self._file.write(piece)

    def note(self, piece: bytes, attempts: Attempts) -> None:
        """Report a piece that is kept. An attempt that came further than all before it does not count as one."""
        self._report(len(piece))
        have = self._file.tell()
        attempts.renew(further=have > self._furthest)
        self._furthest = max(have, self._furthest)
