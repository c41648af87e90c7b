"""What an uploaded file is, by its first and last bytes: the rest is read, and checked, by the job that takes it."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO

from isolatent_export.inputs import InputError

MEDIA_TYPES = (
    "application/zip",
    "application/x-tar",
    "application/gzip",
    "application/vnd.apache.parquet",
    "application/octet-stream",
)
"""What files are sent as; their content decides what they are."""

_TAR_BLOCK = tarfile.BLOCKSIZE
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES = 22 + 2**16
"""The record at the end of a zip file, with the longest comment behind it."""


def suffix(path: Path) -> str:
    """The suffix that a file of this content has: .zip, .tar, .tar.gz or .parquet.

    Raises InputError `undecodable` for any other, and for one that is cut off where that can be seen at once.
    """
    with path.open("rb") as file:
        head = file.read(_TAR_BLOCK)
        if head.startswith((b"PK\x03\x04", _ZIP_END)):
            return _require(".zip", _ZIP_END in _last(file, _ZIP_END_BYTES))
        if head.startswith(b"PAR1"):
            return _require(".parquet", _last(file, 4) == b"PAR1" and file.tell() > 12)
        if head.startswith(b"\x1f\x8b"):
            return _require(".tar.gz", _is_tar(_inflated(head)))
        if _is_tar(head):
            return ".tar"
    raise InputError("undecodable", "neither a zip, tar, tar.gz nor Parquet file by its content; send one of these")


def _require(found: str, whole: object) -> str:
    if whole:
        return found
    raise InputError(
        "undecodable", f"begins like a {found} file, and goes on otherwise; send all of it, or make it again"
    )


def _last(file: BinaryIO, size: int) -> bytes:
    """The last bytes, at most so many; the file is at its end then."""
    end = file.seek(0, 2)
    file.seek(max(0, end - size))
    return file.read()


def _inflated(head: bytes) -> bytes:
    """As much of the first block as the first bytes give."""
    try:
        return zlib.decompressobj(31).decompress(head, _TAR_BLOCK)
    except zlib.error:
        return b""


def _is_tar(block: bytes) -> bool:
    """Whether these are the beginning of a tar file: a header, whose checksum is right when it is there in full."""
    if len(block) < _TAR_BLOCK:
        return block[257:262] == b"ustar"
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
