"""The bytes of items, in the order in which they are asked for, by random access."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isolatent_export.inputs import InputError
from isolatent_serve.jobs.sources import zip as zips
from isolatent_serve.jobs.sources.inputs import Locator, Range, SourceLimits, too_large, unreadable
from isolatent_serve.jobs.sources.local import Local
from isolatent_serve.jobs.sources.places import Place, place_of

if TYPE_CHECKING:
    from isolatent_serve.jobs.sources.table import Rows

AT_ONCE = 32
"""Items behind URIs that are fetched together: each takes its time on the way, however small it is."""
BYTES_AT_ONCE = 64 * 2**20
_UNKNOWN = 4 * 2**20  # bytes of an item whose size no listing told


def open_items(
    locators: Iterable[Locator], limits: SourceLimits = SourceLimits(), *, unpacked: Path | None = None
) -> Iterator[bytes | InputError]:
    """The content of each item, or what is wrong with it. `unpacked` is the folder that `list_inputs` unpacked into.

    A process that reads shard after shard keeps one `Reader` instead: it finds archives and tables open.
    """
    with contextlib.closing(Reader(limits, unpacked)) as reader:
        yield from reader.items(locators)


class Reader:
    """Reads items, and keeps the archive or table that the last one was in open."""

    def __init__(self, limits: SourceLimits = SourceLimits(), unpacked: Path | None = None) -> None:
        self._limits, self._unpacked = limits, unpacked
        self._local, self._unconfined = Local(limits.roots), Local()
        self._places: dict[str, Place] = {}
        self._stamp = ("", "")  # of an archive: its URI, and what tells whether it is another
        self._table: tuple[str, Rows] | None = None

    def items(self, locators: Iterable[Locator]) -> Iterator[bytes | InputError]:
        """The content of each item, in order, or what is wrong with it: codes `unreadable`, `too_many_bytes`..."""
        window: list[Locator] = []
        for locator in locators:
            if window and not _fetched_together(window, locator):
                yield from self._read(window)
                window = []
            window.append(locator)
        if window:
            yield from self._read(window)

    def approach(self, locator: Locator) -> None:
        """Pass over what is before a row in its table, so that reading it next takes no longer than the row does.

        What is wrong is told by `items`.
        """
        table = self._opened(locator)
        if not isinstance(table, InputError):
            table.approach(locator)

    def close(self) -> None:
        """Close whatever is open."""
        self._close_table()
        for place in (self._local, self._unconfined, *self._places.values()):
            place.close()

    def _read(self, window: Sequence[Locator]) -> Iterator[bytes | InputError]:
        """Items that are all in one place."""
        planned = [self._planned(locator) for locator in window]
        ranges = [each for each in planned if isinstance(each, Range)]
        place = self._place(window[0])[0] if ranges else None
        found = iter(place.read(ranges) if place else ())
        for locator, each in zip(window, planned, strict=True):
            if place and isinstance(each, Range):
                yield self._content(place, locator, each, next(found))
            elif not isinstance(each, Range):
                yield each

    def _planned(self, locator: Locator) -> Range | bytes | InputError:
        """Where the bytes of an item are, unless they, or what is wrong, are known at once."""
        if locator.kind == "row":
            table = self._opened(locator)
            return table if isinstance(table, InputError) else table.read(locator)
        try:
            place, path = self._place(locator)
            if locator.kind == "slice":
                self._require_same(place, path, locator)
        except (InputError, OSError) as error:
            return self._refused(error)
        if locator.kind == "zip":
            start, end = zips.span(locator)
            size = max(int(locator.extra[3]), locator.size - zips.most_wasted(self._limits.item_bytes))
            return Range(path, start, end) if size <= self._limits.item_bytes else too_large(size, self._limits)
        if locator.size > self._limits.item_bytes:
            return self._too_large(locator)
        if locator.size == 0:
            return b""  # storages refuse to send nothing
        if locator.kind == "file":  # which may have grown
            return Range(path, 0, self._limits.item_bytes + 1)
        return Range(path, locator.offset, locator.offset + locator.size)

    def _content(self, place: Place, locator: Locator, asked: Range, data: bytes | Exception) -> bytes | InputError:
        if isinstance(data, Exception):
            return unreadable(data, self._limits)
        if locator.kind == "file":
            return data if len(data) <= self._limits.item_bytes else self._too_large(locator)
        if locator.kind in ("slice", "unpacked"):
            whole = len(data) == locator.size
            return data if whole else unreadable("its archive has become shorter", self._limits)
        if more := zips.missing(locator, data):
            rest = place.read([Range(asked.path, asked.start + len(data), asked.start + len(data) + more)])[0]
            if isinstance(rest, Exception):
                return unreadable(rest, self._limits)
            data += rest
        return zips.content(locator, data)

    def _opened(self, locator: Locator) -> Rows | InputError:
        """The table of a row, which stays open, or what is wrong with it."""
        from isolatent_serve.jobs.sources.table import Rows  # pyarrow is an extra, and only tables need it

        try:
            place, path = self._place(locator)
            self._require_same(place, path, locator)
            if self._table is None or self._table[0] != locator.uri:
                self._close_table()
                self._table = (locator.uri, Rows(place.open(path), self._limits))
        except (InputError, OSError) as error:
            return self._refused(error)
        return self._table[1]

    def _refused(self, error: InputError | OSError) -> InputError:
        return error if isinstance(error, InputError) else unreadable(error, self._limits)

    def _require_same(self, place: Place, path: str, locator: Locator) -> None:
        """Raise InputError when the archive or table is not the one that was listed. It is looked at once."""
        listed = str(locator.extra[0])
        if self._stamp[0] != locator.uri:
            self._stamp = (locator.uri, place.stamp(path) if listed else "")
        if self._stamp[1] != listed:
            raise InputError("unreadable", "its archive or table has been changed since; begin a new job")

    def _place(self, locator: Locator) -> tuple[Place, str]:
        """Where a locator leads. Raises SourceError."""
        uri = locator.uri
        if locator.kind == "unpacked":
            return self._unconfined, str((self._unpacked or Path()) / uri)
        if "://" not in uri:
            return self._local, uri
        place, path = place_of(uri, self._limits)
        return self._places.setdefault(_storage(uri), place), path

    def _too_large(self, locator: Locator) -> InputError:
        return too_large(max(locator.size, self._limits.item_bytes + 1), self._limits)

    def _close_table(self) -> None:
        if self._table:
            self._table[1].close()
        self._table = None


def _storage(uri: str) -> str:
    """What the items have in common that can be fetched together: s3://BUCKET."""
    return "/".join(uri.split("/", 3)[:3])


def _fetched_together(window: Sequence[Locator], locator: Locator) -> bool:
    if "://" not in locator.uri or locator.kind == "row" or window[0].kind == "row" or len(window) == AT_ONCE:
        return False
    sizes = sum(each.size if each.size >= 0 else _UNKNOWN for each in (*window, locator))
    return sizes <= BYTES_AT_ONCE and _storage(window[0].uri) == _storage(locator.uri)
