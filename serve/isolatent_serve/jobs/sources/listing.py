"""Every item of the inputs of a job, in an order that does not change."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from isolatent_serve.jobs.disk import sync
from isolatent_serve.jobs.sources import glob, tar
from isolatent_serve.jobs.sources.folder import Found, walk
from isolatent_serve.jobs.sources.inputs import (
    Check,
    Input,
    Locator,
    Modality,
    Skipped,
    SourceError,
    SourceLimits,
    Wanted,
    clean,
    unchecked,
    wanted,
)
from isolatent_serve.jobs.sources.members import CONTAINERS, Checked
from isolatent_serve.jobs.sources.places import Place
from isolatent_serve.jobs.sources.shapes import Shape, Source, shape_of, source_of
from isolatent_serve.jobs.sources.zip import list_zip


def list_inputs(
    inputs: Sequence[str],
    *,
    column: str | None = None,
    limits: SourceLimits = SourceLimits(),
    modality: Modality | None = None,
    unpack: Path | None = None,
    skipped: Skipped | None = None,
    check: Check = unchecked,
) -> Iterator[Input]:
    """The items of files, folders, patterns, archives and tables, given as paths or URIs.

    Folders are listed to any depth by name, archives and tables in their own order. Ids are names below the deepest
    folder that all inputs share, an archive or table being a folder, too; rows go by the column `id`, or are numbered.
    They need not be distinct. Of folders and archives only files named like inputs of `modality` count, the others are
    added to `skipped`. `column` is the one of files or paths in tables. Compressed tar archives are unpacked into the
    folder `unpack`, which `open_items` needs as well. `check` is called for each item, and
    while there are none.

    Raises SourceError with the reason and the remedy, also after items were given.
    """
    passed = Skipped() if skipped is None else skipped
    lister = _Lister(column, limits, wanted(modality), unpack, passed, check)
    sources = [source_of(text, limits) for text in inputs]
    for source, above in zip(sources, _above([source.base for source in sources]), strict=True):
        count = 0
        for item in lister.items(source):
            check()
            yield Input(f"{above}{item.id}", item.locator)
            count += 1
        if not count and source.shape in ("folder", "pattern"):
            raise SourceError(_nothing(source, passed))


@dataclass
class _Lister:
    column: str | None
    limits: SourceLimits
    keep: Wanted
    unpack: Path | None
    passed: Skipped
    check: Check
    unpacked: int = 0
    """Archives so far."""

    def items(self, source: Source) -> Iterator[Input]:
        """The items of one input, ids relative to its base."""
        place, path = source.place, source.path
        if source.shape == "folder":
            yield from self._folder(place, path)
        elif source.shape == "pattern":
            yield from self._pattern(place, path)
        elif source.shape == "file":
            yield Input(clean(posixpath.basename(path)), Locator("file", place.uri(path)))
        else:
            yield from self._container(place, path, source.shape)

    def _folder(self, place: Place, path: str) -> Iterator[Input]:
        for found in walk(place, path, self.passed, check=self.check):
            if self.keep(found.name):
                yield _file(place, found)
            else:
                inside = found.name.lower().endswith(CONTAINERS)
                self.passed.add("an archive or table in a folder" if inside else "other suffix", found.name)

    def _pattern(self, place: Place, path: str) -> Iterator[Input]:
        def keep(name: str) -> bool:
            return self.keep(name) or name.lower().endswith(CONTAINERS)

        root, pattern = glob.fixed_part(place, path)
        for found in glob.matching(place, root, pattern, keep, self.passed, self.check):
            shape = shape_of(place, found.path)
            if shape == "file":
                yield _file(place, found)
                continue
            for item in self._container(place, found.path, shape):
                yield Input(f"{clean(found.name)}/{item.id}", item.locator)

    def _container(self, place: Place, path: str, shape: Shape) -> Iterator[Input]:
        """The items of an archive or a table."""
        uri = place.uri(path)
        try:
            stamp = place.stamp(path)
            with place.open(path) as file:
                if shape == "table":
                    yield from _rows(file, uri, stamp, self.column, self.limits)
                elif shape == "zip":
                    yield from list_zip(file, uri, self._checked(file, uri))
                elif not tar.is_compressed(file.read(tar.MARK)):
                    yield from tar.list_tar(file, uri, stamp, self._checked(file, uri))
                else:
                    yield from self._compressed(file, uri)
        except OSError as error:
            raise SourceError(f"{uri}: cannot be read ({error.strerror or error}); check its permissions") from None

    def _compressed(self, file: BinaryIO, uri: str) -> Iterator[Input]:
        if self.unpack is None:
            raise SourceError(f"{uri}: compressed as a whole, and there is no folder to unpack it to; unpack it first")
        name = f"{self.unpacked:06d}.tar"
        self.unpacked += 1
        self.unpack.mkdir(parents=True, exist_ok=True)
        sync(self.unpack.parent)
        checked = self._checked(file, uri)
        tar.unpack(file, uri, self.unpack / name, self.limits, self.check)
        with (self.unpack / name).open("rb") as unpacked:
            yield from tar.list_tar(unpacked, name, "", checked)

    def _checked(self, file: BinaryIO, uri: str) -> Checked:
        size = file.seek(0, 2)
        file.seek(0)
        return Checked(uri, size, self.keep, self.passed, self.limits, self.check)


def _file(place: Place, found: Found) -> Input:
    return Input(clean(found.name), Locator("file", place.uri(found.path), 0, found.size))


def _rows(file: BinaryIO, uri: str, stamp: str, column: str | None, limits: SourceLimits) -> Iterator[Input]:
    try:
        from isolatent_serve.jobs.sources.table import list_table
    except ImportError:
        raise SourceError(f"{uri}: Parquet needs a package that is missing; pip install pyarrow") from None
    yield from list_table(file, uri, stamp, column, limits)


def _above(bases: Sequence[str]) -> list[str]:
    """What leads from the deepest folder that all bases share to each, with "/" at its end unless it is empty."""
    parts = [base.rstrip("/").split("/") for base in bases]
    shared = len(posixpath.commonprefix([[*each, ""] for each in parts]))
    return ["".join(f"{part}/" for part in each[shared:] if part) for each in parts]


def _nothing(source: Source, passed: Skipped) -> str:
    reasons = [f"{count} passed over: {reason} ({passed.first[reason]})" for reason, count in passed.counts.items()]
    found = f" ({'; '.join(reasons)[:200]})" if reasons else ""
    return (
        f"{source.text}: no inputs in it{found}; name images, clouds or meshes, and archives by themselves or by *.tar"
    )
