"""Zip archives: the list of their members read as a stream, and one member by random access.

zipfile would keep a million members in memory, in every process; here the list is passed through once, while planning,
and a member is then read from its place alone. The format is APPNOTE.TXT of PKWARE, sections 4.3 and 4.5.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from isolatent_export.inputs import InputError
from isolatent_serve.jobs.sources.inputs import Input, Locator, clean
from isolatent_serve.jobs.sources.members import Checked, cut_off, refused

HEADER = 30
"""Bytes of a member's local header, without its name and its extra field."""
SLACK = 512
"""More bytes that are read with a member: its local extra field may be longer than nothing."""

_END = struct.Struct("<4s4H2LH")
_END_64_PLACE = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 2**16
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF_8 = 0x1, 0x800
_MOST_DEFLATED = 1032  # what deflate packs into a byte at most
_UNIX = 3
_32, _16 = 0xFFFFFFFF, 0xFFFF


class _List(NamedTuple):
    """Where the list of members is, how long, how many there are, and what was put before the archive."""

    start: int
    size: int
    members: int
    shift: int


class _Entry(NamedTuple):
    """What the list says of a member."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int


def list_zip(file: BinaryIO, uri: str, checked: Checked) -> Iterator[Input]:
    """The members of an archive that are inputs, in the order of its list. Raises SourceError."""
    name = checked.archive
    try:
        listed = _find_list(file, name)
        checked.announced(listed.members)
        packed = 0
        for entry in _entries(file, listed, name):
            packed += entry.packed + HEADER
            if entry.offset + HEADER + entry.packed > listed.start or packed > listed.start:
                raise refused(name, entry.name, "overlaps with others or the end", "do not use this archive")
            if entry.name.endswith("/"):
                checked.folder(entry.name)
                continue
            _require_plain(name, entry)
            if taken := checked.takes(entry.name, entry.size):
                extra = (entry.name, entry.method, entry.crc, entry.size)
                yield Input(clean(taken), Locator("zip", uri, entry.offset, entry.packed, extra))
    except (OSError, struct.error, EOFError) as error:
        raise cut_off(name, error) from None


def span(locator: Locator) -> tuple[int, int]:
    """The bytes of the archive that are read for a member: from, and to before."""
    name = str(locator.extra[0])
    return locator.offset, locator.offset + HEADER + len(name.encode("utf-8", "replace")) + SLACK + locator.size


def most_wasted(size: int) -> int:
    """How many bytes more a file of `size` bytes may take packed than plain, as far as packed members are read."""
    return 2**16 + size // 1000


def missing(locator: Locator, data: bytes) -> int:
    """How many bytes after `data`, read from `span`, the member needs: its local extra field can be a long one."""
    if len(data) < HEADER:
        return 0
    *_, name_size, extra_size = _LOCAL.unpack_from(data)
    return int(max(0, HEADER + name_size + extra_size + locator.size - len(data)))


def content(locator: Locator, data: bytes) -> bytes | InputError:
    """The content of a member, whose local header `data` begins with; or what is wrong with it."""
    name, method, crc, size = locator.extra
    assert isinstance(size, int)
    if len(data) < HEADER or data[:4] != b"PK\3\4":
        return _changed("there is no member at its place")
    _, _, flags, said_method, _, _, _, _, _, name_size, extra_size = _LOCAL.unpack_from(data)
    if _text(data[HEADER : HEADER + name_size], flags) != name or said_method != method:
        return _changed("another member is at its place")
    start = HEADER + name_size + extra_size
    packed = data[start : start + locator.size]
    try:
        unpacked = packed if method == _STORED else zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    except zlib.error as error:
        return InputError("undecodable", f"damaged in its archive ({error}); make the archive again")
    if len(unpacked) != size:
        found = "more" if len(unpacked) > size else len(unpacked)
        return InputError(
            "undecodable", f"{size} bytes announced by its archive, {found} found; make the archive again"
        )
    if zlib.crc32(unpacked) != crc:
        return InputError("undecodable", "damaged in its archive (wrong CRC-32); make the archive again")
    return unpacked


def _changed(reason: str) -> InputError:
    return InputError("unreadable", f"its archive has been changed ({reason}); begin a new job")


def _find_list(file: BinaryIO, archive: str) -> _List:
    length = file.seek(0, 2)
    start = max(0, length - _LONGEST_COMMENT - _END.size)
    file.seek(start)
    tail = file.read(length - start)
    place = tail.rfind(b"PK\5\6", 0, len(tail) - _END.size + 4)
    if place < 0:
        raise cut_off(archive, "no list of its members")
    _, disk, list_disk, here, count, size, offset, _ = _END.unpack_from(tail, place)
    end = start + place
    if disk != list_disk or (disk, here) not in ((0, count), (_16, count)):
        raise cut_off(archive, "one of several parts")
    if found := _find_64(file, end):  # some programs write one whether it is needed or not
        end, count, size, offset = found
    shift = end - size - offset
    if shift < 0 or end - size < 0:
        raise cut_off(archive, "the list of its members is not where it should be")
    return _List(end - size, size, count, shift)


def _find_64(file: BinaryIO, end: int) -> tuple[int, int, int, int] | None:
    """Where the zip64 end is, number of members, size and offset of their list."""
    if end < _END_64_PLACE.size:
        return None
    file.seek(end - _END_64_PLACE.size)
    mark, _, _, _ = _END_64_PLACE.unpack(file.read(_END_64_PLACE.size))
    if mark != b"PK\6\7":
        return None
    place = end - _END_64_PLACE.size - _END_64.size
    file.seek(max(0, place))
    mark, _, _, _, _, _, _, count, size, offset = _END_64.unpack(file.read(_END_64.size))
    if mark != b"PK\6\6":
        raise struct.error("no zip64 end where it should be")
    return place, count, size, offset


def _entries(file: BinaryIO, listed: _List, archive: str) -> Iterator[_Entry]:
    file.seek(listed.start)
    left, count = listed.size, 0
    while left > 0:
        head = file.read(_ENTRY.size)
        if len(head) < _ENTRY.size or head[:4] != b"PK\1\2":
            raise cut_off(archive, f"member {count} of its list is damaged")
        (
            _,
            _,
            system,
            _,
            _,
            flags,
            method,
            _,
            _,
            crc,
            packed,
            size,
            name_size,
            extra_size,
            comment_size,
            _,
            _,
            mode,
            at,
        ) = _ENTRY.unpack(head)
        rest = file.read(name_size + extra_size + comment_size)
        if len(rest) < name_size + extra_size + comment_size:
            raise cut_off(archive, "its list of members ends too early")
        size, packed, at = _with_64(size, packed, at, rest[name_size : name_size + extra_size])
        name = _text(rest[:name_size], flags)
        yield _Entry(name, flags, method, crc, packed, size, at + listed.shift, mode >> 16 if system == _UNIX else 0)
        left -= _ENTRY.size + len(rest)
        count += 1
    if count != listed.members:
        raise cut_off(archive, f"{listed.members} members announced, {count} listed")


def _with_64(size: int, packed: int, at: int, extra: bytes) -> tuple[int, int, int]:
    """The three numbers, from the zip64 field where they do not fit."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{length // 8}Q", extra, place + 4))
            wide = [next(numbers, -1) if number == _32 else number for number in (size, packed, at)]
            if -1 in wide:
                raise struct.error("a zip64 field that is too short")
            return wide[0], wide[1], wide[2]
        place += 4 + length
    return size, packed, at


def _require_plain(archive: str, entry: _Entry) -> None:
    again = "make the archive again with zip"
    if entry.flags & _ENCRYPTED:
        raise refused(archive, entry.name, "is encrypted", "make the archive again without a password")
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFLNK:
        raise refused(archive, entry.name, "is a link", "make the archive again without --symlinks")
    if kind not in (0, stat.S_IFREG):
        raise refused(archive, entry.name, "is a device, a pipe or a folder", "leave it out of the archive")
    if entry.method not in (_STORED, _DEFLATED):
        raise refused(archive, entry.name, f"is packed by method {entry.method}", f"{again}, which deflates")
    possible = entry.packed if entry.method == _STORED else entry.packed * _MOST_DEFLATED
    if entry.size > possible or (entry.method == _STORED and entry.size != entry.packed):
        raise refused(archive, entry.name, f"cannot hold {entry.size} bytes in {entry.packed}", again)


def _text(name: bytes, flags: int) -> str:
    return name.decode("utf-8", "backslashreplace") if flags & _UTF_8 else name.decode("cp437")
