"""Paths that clients name: below the folders that were allowed, whatever links there are on the way."""

from __future__ import annotations

import os
from collections.abc import Sequence

from isolatent_serve.jobs.sources import glob
from isolatent_serve.jobs.sources.inputs import SourceError
from isolatent_serve.jobs.sources.local import Local

_LONGEST = 4096


def resolve_below(path_or_pattern: str, roots: Sequence[str | os.PathLike[str]]) -> str:
    """The absolute path or pattern, links resolved, to give to `list_inputs` with `SourceLimits(roots=...)`.

    A relative one is looked for below each root in turn. Raises SourceError when it is a URI, has `..` in it, or
    nothing below the roots is there: what lies elsewhere is not told from what does not exist.
    """
    text = path_or_pattern
    shown = ascii(text[:200])
    if "://" in text:
        raise SourceError(f"{shown}: addresses are not fetched; name a path below an allowed folder, or upload a file")
    if not text or len(text) > _LONGEST or "\0" in text or ".." in text.split("/"):
        raise SourceError(f"{shown}: not a plain path or pattern; write it without .. and begin at an allowed folder")
    place = Local([os.fspath(root) for root in roots])
    for root in roots:
        full = os.path.join(os.path.realpath(root), text)  # noqa: PTH118 - an absolute `text` stays as it is
        if place.kind(full):
            return os.path.realpath(full)
        above, pattern = glob.fixed_part(place, full)
        if glob.is_pattern(pattern) and place.kind(above) == "folder":
            return f"{os.path.realpath(above)}/{pattern}"
    raise SourceError(f"{shown}: nothing there below an allowed folder; check the path")
