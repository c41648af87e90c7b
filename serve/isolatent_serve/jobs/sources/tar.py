"""Tar archives: where each member lies, found once. What is compressed is unpacked first, within limits."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from isolatent_serve.jobs.disk import sync
from isolatent_serve.jobs.sources.inputs import Check, Input, Kind, Locator, SourceError, SourceLimits, clean, unchecked
from isolatent_serve.jobs.sources.members import Checked, cut_off, refused

MARK = 6
"""Bytes by which `is_compressed` tells."""
_BLOCK = 512
_MAX_HEADER = 2**16
"""Bytes of an extended header, which tarfile reads into memory as a whole."""
_PIECE = 2**20
_XZ_MEMORY = 512 * 2**20
"""What the strongest preset of xz takes is an eighth of it; a header can ask for gigabytes."""
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, MemoryError)
"""What readers of compressed files raise."""
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def list_tar(file: BinaryIO, uri: str, stamp: str, checked: Checked) -> Iterator[Input]:
    """The members of an uncompressed archive that are inputs, in their order. Raises SourceError.

    Without a `stamp` it is the file `uri` in the folder for what was unpacked.
    """
    kind: Kind = "slice" if stamp else "unpacked"
    name, size = checked.archive, file.seek(0, 2)
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as archive:
            while member := archive.next():
                vars(archive)["members"].clear()  # tarfile would keep them all
                _require_plain(name, member)
                if member.isdir():
                    checked.folder(member.name)
                    continue
                if member.offset_data + member.size > size:
                    raise refused(name, member.name, "is cut off", "get or make the archive again")
                if taken := checked.takes(member.name, member.size):
                    yield Input(clean(taken), Locator(kind, uri, member.offset_data, member.size, (stamp,)))
            _require_end(name, file, archive.offset)
    except _Absurd as error:
        raise cut_off(name, error) from None
    except (tarfile.TarError, OSError, ValueError, EOFError, RecursionError) as error:
        if isinstance(error, SourceError):
            raise
        raise cut_off(name, error) from None


class _Absurd(Exception):  # noqa: N818 - the reason
    """What is wrong with a header."""


class _Member(tarfile.TarInfo):
    """A header that is looked at before what it announces is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        """Raises _Absurd for sizes that would lead backwards, or fill the memory."""
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _EXTENDED and member.size > _MAX_HEADER):
            raise _Absurd(f"a header that announces {member.size} bytes")
        return member


def _require_plain(archive: str, member: tarfile.TarInfo) -> None:
    if member.issym() or member.islnk():
        remedy = "make the archive again with tar --dereference --hard-dereference"
        raise refused(archive, member.name, "is a link", remedy)
    if member.issparse():
        raise refused(archive, member.name, "is a sparse file", "make the archive again without --sparse")
    if not member.isdir() and not member.isreg():
        raise refused(archive, member.name, "is a device or a pipe", "leave it out of the archive")
    if member.size < 0:
        raise refused(archive, member.name, f"announces {member.size} bytes", "make the archive again")


def _require_end(archive: str, file: BinaryIO, offset: int) -> None:
    """Raise SourceError when the list of members ended because of a damaged header: tarfile does not tell."""
    file.seek(offset)
    if any(file.read(_BLOCK)):
        raise cut_off(archive, f"no header at byte {offset}")


def unpack(file: BinaryIO, archive: str, target: Path, limits: SourceLimits, check: Check = unchecked) -> None:
    """Bring what a compressed file holds to the disk, at `target`. Raises SourceError: damaged, too large, no room."""
    file.seek(0)
    start, written = file.read(MARK), 0
    packed = file.seek(0, 2)
    file.seek(0)
    most = min(limits.unpacked_bytes, limits.archive_ratio * max(packed, 4096))
    try:
        with target.open("wb") as out:
            for piece in _pieces(file, start):
                check()
                written += len(piece)
                if written > most:
                    raise SourceError(
                        f"{archive}: more than {most} bytes unpacked ({limits.unpacked_bytes} are allowed, and "
                        f"{limits.archive_ratio} per packed byte); unpack it yourself if you trust it"
                    )
                _require_room(archive, target, len(piece), limits)
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        sync(target.parent)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(archive, target) from None
        if isinstance(error, _DAMAGE) and not isinstance(error, SourceError):
            raise cut_off(archive, getattr(error, "strerror", None) or error) from None
        raise


def _require_room(archive: str, target: Path, size: int, limits: SourceLimits) -> None:
    """Raise SourceError when so many bytes more would leave too few on the disk."""
    if limits.free_bytes and shutil.disk_usage(target.parent).free - size < limits.free_bytes:
        raise _no_room(archive, target)


def _no_room(archive: str, target: Path) -> SourceError:
    return SourceError(f"{archive}: compressed as a whole, and no room to unpack it in {target.parent}; make some")


def is_compressed(start: bytes) -> bool:
    """Whether a file that begins so is compressed in a way that `unpack` undoes."""
    return start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"))


def _pieces(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    if start.startswith(b"\xfd7zXZ\0"):
        yield from _xz(file)
        return
    with gzip.GzipFile(fileobj=file) if start.startswith(b"\x1f\x8b") else bz2.BZ2File(file) as stream:
        while piece := stream.read(_PIECE):
            yield piece


def _xz(file: BinaryIO) -> Iterator[bytes]:
    """Like lzma.LZMAFile, which knows no limit of its memory."""
    stream, packed = _xz_stream(), b""
    while True:
        if stream.eof:  # another one may follow, after zeros
            packed = stream.unused_data.lstrip(b"\0")
            while not packed and (more := file.read(_PIECE)):
                packed = more.lstrip(b"\0")
            if not packed:
                return
            stream = _xz_stream()
        elif stream.needs_input and not (packed := file.read(_PIECE)):
            raise EOFError("it ends in the middle")
        if piece := stream.decompress(packed, _PIECE):
            yield piece
        packed = b""


def _xz_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
