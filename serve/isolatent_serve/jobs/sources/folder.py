"""The files of a folder at any depth, in the order of their names: hidden ones and linked folders are passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from isolatent_serve.jobs.sources.inputs import Check, Skipped, unchecked
from isolatent_serve.jobs.sources.places import Place

DEEPEST = 500
"""Folders in folders; more than anybody has, unless a file system goes round in circles."""


class Found(NamedTuple):
    """A file: its path, its name relative to where the walk began, and its size or -1."""

    path: str
    name: str
    size: int


def walk(
    place: Place,
    root: str,
    passed: Skipped,
    *,
    enters: Callable[[str], bool] = lambda _: True,
    check: Check = unchecked,
) -> Iterator[Found]:
    """Every file below the folder `root`; those folders are entered whose relative name `enters` accepts.

    Raises SourceError when a folder cannot be opened.
    """
    levels = [("", place.entries(root))]
    while levels:
        check()
        above, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        name = f"{above}{entry.name}"
        path = f"{root.rstrip('/')}/{name}"
        if entry.name.startswith("."):
            passed.add("hidden", name)
        elif entry.kind == "file":
            yield Found(path, name, entry.size)
        elif entry.kind != "folder":
            passed.add(entry.kind, name)
        elif len(levels) == DEEPEST:
            passed.add(f"{DEEPEST} folders deep", name)
        elif enters(name):
            levels.append((f"{name}/", place.entries(path)))
