"""Patterns: *, ? and [...] match within a name, ** any number of folders; a folder that matches counts as its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from fsspec.utils import glob_translate

from isolatent_serve.jobs.sources.folder import Found, walk
from isolatent_serve.jobs.sources.inputs import Check, Skipped, SourceError, Wanted, unchecked
from isolatent_serve.jobs.sources.places import Place

_MAGIC = re.compile(r"[*?[]")


def is_pattern(text: str) -> bool:
    """Whether a path or URI has anything to match in it."""
    return _MAGIC.search(text) is not None


def fixed_part(place: Place, pattern: str) -> tuple[str, str]:
    """The folder above the first part that matches anything, and the pattern from there on.

    A part that is the name of a folder means that folder, whatever else it could match.
    """
    parts = pattern.split("/")
    first = 0
    while first < len(parts) - 1 and not (
        is_pattern(parts[first]) and place.kind("/".join(parts[: first + 1])) != "folder"
    ):
        first += 1
    return "/".join(parts[:first]) or ("/" if pattern.startswith("/") else "."), "/".join(parts[first:])


def matching(
    place: Place, root: str, pattern: str, keep: Wanted, passed: Skipped, check: Check = unchecked
) -> Iterator[Found]:
    """The files below `root` that `pattern` matches. Where it names no suffix, they must be ones to `keep`.

    Raises SourceError: a pattern that means nothing, or a folder that cannot be opened.
    """
    last = pattern.rpartition("/")[2]
    names_suffix = "." in last and not is_pattern(last.rpartition(".")[2])
    for found in walk(place, root, passed, enters=lambda folder: _may_lead(pattern, folder), check=check):
        itself = _fits(pattern, found.name)
        if not itself and not any(_fits(pattern, folder) for folder in _above(found.name)):
            continue
        if (itself and names_suffix) or keep(found.name):
            yield found
        else:
            passed.add("other suffix", found.name)


def _may_lead(pattern: str, folder: str) -> bool:
    """Whether something in `folder` can match, or the folder does."""
    parts, names = pattern.split("/"), folder.split("/")
    depth = min(len(parts), len(names))
    return "**" in parts[:depth] or _fits("/".join(parts[:depth]), "/".join(names[:depth]))


def _above(name: str) -> Iterator[str]:
    """The folders that hold a file, from the inside."""
    while folder := name.rpartition("/")[0]:
        yield folder
        name = folder


def _fits(pattern: str, name: str) -> bool:
    return _compiled(pattern).fullmatch(name) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(glob_translate(pattern))
    except (ValueError, re.error) as error:
        raise SourceError(f"{pattern}: no pattern ({error}); write it like images/*.png or images/**/*.png") from None
