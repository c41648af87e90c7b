"""Files of this machine: all of them, or only those below some folders, whatever links there are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from isolatent_serve.jobs.sources.inputs import Entry, Range, SourceError
from isolatent_serve.jobs.sources.ordering import in_order

_LINKS = Path("/proc/self/fd")
"""Where Linux tells what an open file is, which no change of links can alter afterwards."""


class Local:
    """The place of paths. With `roots`, what does not lie below one of them, links resolved, is not there."""

    def __init__(self, roots: Sequence[str] | None = None) -> None:
        self._roots = None if roots is None else [os.path.realpath(root) for root in roots]
        self._last: tuple[str, BinaryIO] | None = None

    def kind(self, path: str) -> Literal["file", "folder"] | None:
        """What is at `path`, links followed."""
        try:
            mode = Path(path).stat().st_mode if self._reaches(os.path.realpath(path)) else 0
        except (OSError, ValueError):  # a path with a NUL in it
            return None
        return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else None

    def entries(self, path: str) -> Iterator[Entry]:
        """What a folder has in it, sorted by name; linked folders are not followed. Raises SourceError."""
        try:
            with os.scandir(path) as found:
                for line in in_order(f"{entry.name}\0{self._kind_of(entry)}" for entry in found):
                    name, kind = line.split("\0")
                    yield Entry(name, kind)
        except OSError as error:
            raise SourceError(
                f"{path}: a folder that cannot be opened ({error.strerror}); check its permissions"
            ) from None

    def open(self, path: str) -> BinaryIO:
        """A plain file. Raises OSError, also when it leads out of the roots: that is looked at before and after."""
        if self._roots is not None and not self._reaches(os.path.realpath(path)):
            raise OSError("it leads out of the allowed folders")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us up
        file = os.fdopen(descriptor, "rb")
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError("not a plain file")
            if self._roots is not None and not self._reaches(_real(descriptor, path)):
                raise OSError("it leads out of the allowed folders")
        except OSError:
            file.close()
            raise
        return file

    def stamp(self, path: str) -> str:
        """Size and time of the last change. Raises OSError."""
        with self.open(path) as file:
            facts = os.fstat(file.fileno())
        return f"{facts.st_size}-{facts.st_mtime_ns}"

    def read(self, ranges: Sequence[Range]) -> list[bytes | Exception]:
        """One range after the other; a file stays open as long as the same one is asked for."""
        return [self._read(each) for each in ranges]

    def uri(self, path: str) -> str:
        """The absolute path, or a file: URI where its name is not valid Unicode."""
        try:
            path.encode()
        except UnicodeEncodeError:
            return Path(path).absolute().as_uri()
        return os.path.abspath(path)  # noqa: PTH100 - dots removed, links kept

    def close(self) -> None:
        """Close the file that stayed open."""
        if self._last:
            self._last[1].close()
        self._last = None

    def _read(self, part: Range) -> bytes | Exception:
        try:
            if self._last is None or self._last[0] != part.path:
                self.close()
                self._last = (part.path, self.open(part.path))
            file = self._last[1]
            file.seek(part.start)
            size = os.fstat(file.fileno()).st_size  # memory is taken for what is asked for, not for what is there
            return file.read(max(0, min(part.end, size) - part.start))
        except (OSError, ValueError) as error:
            return error

    def _reaches(self, real: str) -> bool:
        """Whether a path without links is one that may be read."""
        return self._roots is None or any(real == root or Path(real).is_relative_to(root) for root in self._roots)

    def _kind_of(self, entry: os.DirEntry[str]) -> str:
        if entry.is_dir():
            return "a link to a folder" if entry.is_symlink() else "folder"
        if not entry.is_file():  # a link to nothing, too
            return "no plain file"
        if entry.is_symlink() and not self._reaches(os.path.realpath(entry.path)):
            return "a link out of the allowed folders"
        return "file"


def _real(descriptor: int, path: str) -> str:
    """Where an open file is, links resolved."""
    link = _LINKS / str(descriptor)
    return str(link.readlink()) if link.is_symlink() else os.path.realpath(path)
