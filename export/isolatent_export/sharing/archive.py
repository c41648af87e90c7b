"""A bundle as one tar file, and back: members are checked one by one before anything of them is written.

Accepted is what `pack` writes: plain files of a bundle's kinds, all at the top or all in one folder. Links, devices,
absolute paths, `..`, files of other kinds, too many files and too many bytes are refused.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from isolatent_export.bundle import KINDS, MANIFEST, Bundle, BundleError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_FILES = 64
MAX_BYTES = 8 * 2**30
_MAX_HEADER = 2**16
"""Bytes of an extended header, which tarfile reads into memory as a whole."""


def pack(bundle: Bundle, path: Path) -> None:
    """Write an intact bundle to `path`, compressed when its name says so; the same bundle gives the same bytes.

    Raises BundleError when a file of the bundle is not what the manifest says, or `path` exists.
    """
    bundle.require_intact()
    if path.exists():
        raise BundleError(f"{path} exists; choose another name")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _compressed(part, path.name) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
            for name in (MANIFEST, *sorted(bundle.manifest.files)):
                member = tarfile.TarInfo(f"{bundle.manifest.name}/{name}")
                member.size, member.mode = bundle.file(name).stat().st_size, 0o644
                with bundle.file(name).open("rb") as file:
                    archive.addfile(member, file)
        part.rename(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be written ({error.strerror or error}); choose another name") from None
    finally:
        part.unlink(missing_ok=True)


def unpack(path: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Write the files of the archive `path` into the empty `folder`.

    Raises BundleError naming the member that is not allowed, or saying that the archive is cut off, and OSError when
    `folder` cannot be written: what is wrong then is not the archive.
    """
    try:
        with _source(path, max_bytes) as source, tarfile.open(fileobj=source, mode="r|", tarinfo=_Member) as archive:
            for name, member in _checked(archive):
                content = archive.extractfile(member)
                assert content is not None  # a plain file
                with (folder / name).open("xb") as target:
                    shutil.copyfileobj(content, target)
                if (folder / name).stat().st_size != member.size:
                    raise EOFError
    except _Refused as reason:
        raise BundleError(f"{path}: {reason}; do not use this archive") from None
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise BundleError(f"{path}: not a readable tar archive ({error or 'it is cut off'}); get it again") from None


class _Refused(Exception):  # noqa: N818 - the reason, for `unpack` to complete
    """What is wrong with an archive."""


_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Member(tarfile.TarInfo):
    """A header that is looked at before what it announces is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        """Raises _Refused for an extended header of absurd size."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTENDED and member.size > _MAX_HEADER:
            raise _Refused("a header of absurd size")
        return member


def _checked(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Members that are allowed, under the name that each gets. Raises _Refused at the first that is not."""
    folders: set[str] = set()
    names: set[str] = set()
    for member in archive:
        shown = ascii(member.name)
        if member.isdir() and len(PurePosixPath(member.name).parts) <= 1:
            continue  # the folder itself: other programs write it
        if not member.isreg() or member.issparse():
            raise _Refused(f"{shown} is no plain file")
        parts = member.name.removeprefix("./").split("/")
        if len(parts) > 2 or {"", ".", ".."} & set(parts) or "\\" in member.name or "\0" in member.name:
            raise _Refused(f"the path {shown} leaves the bundle")
        folder, name = ["", *parts][-2:]
        folders.add(folder)
        if not name.endswith(KINDS) or name.startswith("."):
            raise _Refused(f"{shown} is no kind of file that bundles have")
        if name in names or len(folders) > 1 or len(names) == MAX_FILES:
            raise _Refused(f"{shown} is one file too many")
        names.add(name)
        yield name, member


@contextmanager
def _source(path: Path, most: int) -> Iterator[IO[bytes]]:
    """What is in the archive `path`, unpacked where it is compressed, and at most so many bytes of it."""
    with _reading():
        file = path.open("rb")
    with file:
        with _reading():
            zipped = file.peek(2)[:2] == b"\x1f\x8b"
        stream = gzip.GzipFile(fileobj=file) if zipped else file
        yield cast(IO[bytes], _Limited(cast(IO[bytes], stream), most))


@contextmanager
def _reading() -> Iterator[None]:
    """An OSError of the block as one of tarfile's: those that are left are of writing."""
    try:
        yield
    except OSError as error:
        raise tarfile.ReadError(error.strerror or str(error)) from None


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than so many bytes."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream = stream
        self._left = most

    def read(self, size: int = -1) -> bytes:
        with _reading():
            data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _Refused("more bytes than a bundle may have")
        return data


@contextmanager
def _compressed(path: Path, name: str) -> Iterator[IO[bytes]]:
    with path.open("xb") as file:
        if name.endswith((".gz", ".tgz")):
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as stream:
                yield cast(IO[bytes], stream)
        else:
            yield file
