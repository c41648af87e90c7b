"""What an input is: a file, a folder, a pattern, an archive or a table. Names decide, and content where they do not."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Literal

from isolatent_serve.jobs.sources import glob
from isolatent_serve.jobs.sources.inputs import SourceError, SourceLimits, wanted
from isolatent_serve.jobs.sources.members import CLOSED, TABLES, TARS
from isolatent_serve.jobs.sources.places import Place, place_of
from isolatent_serve.jobs.sources.tar import is_compressed

Shape = Literal["file", "folder", "pattern", "zip", "tar", "table"]


@dataclass(frozen=True)
class Source:
    """One input: where and what it is, and the folder, archive or table that its ids are relative to."""

    text: str
    place: Place
    path: str
    shape: Shape
    base: str


def source_of(text: str, limits: SourceLimits) -> Source:
    """What an input is. Raises SourceError when there is nothing, or nothing that can be reached."""
    place, path = place_of(text, limits)
    kind = place.kind(path)
    if kind == "folder":
        return Source(text, place, path, "folder", place.uri(path))
    if kind == "file":
        shape, uri = shape_of(place, path), place.uri(path)
        return Source(text, place, path, shape, posixpath.dirname(uri) if shape == "file" else uri)
    if glob.is_pattern(path) and place.kind(root := glob.fixed_part(place, path)[0]):
        return Source(text, place, path, "pattern", place.uri(root))
    reach = ", or none below an allowed folder" if limits.roots is not None else ""
    raise SourceError(f"{text}: no such file or folder{reach}; check the path")


def shape_of(place: Place, path: str) -> Shape:
    """What the file at `path` is. Raises SourceError for an archive of a kind that is not read."""
    name = path.lower()
    if name.endswith(CLOSED):
        raise SourceError(f"{path}: an archive of a kind that is not read; unpack it, or make it again as tar or zip")
    if name.endswith(".zip"):
        return "zip"
    if name.endswith(TARS):
        return "tar"
    if name.endswith(TABLES):
        return "table"
    return "file" if wanted(None)(name) else _by_content(place, path)


def _by_content(place: Place, path: str) -> Shape:
    try:
        with place.open(path) as file:
            start = file.read(512)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from None
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if start.startswith(b"PAR1"):
        return "table"
    return "tar" if is_compressed(start) or start[257:262] == b"ustar" else "file"
