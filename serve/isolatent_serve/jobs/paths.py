"""Paths of the service's machine that jobs name: below the directories that the service was given, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isolatent_serve.jobs.sources.below import resolve_below
from isolatent_serve.jobs.sources.inputs import SourceError
from isolatent_serve.problems import Problem


def resolve(text: str, roots: Sequence[Path]) -> str:
    """The file, folder or pattern `text` as an absolute one, taken as relative to the first root that has it.

    Raises Problem `path_refused` when it leaves the roots, or nothing is there. What a link leads to is looked at again
    when it is read.
    """
    if not roots:
        raise _refused("this service reads no paths; upload a file, or ask who runs it for --jobs-input DIR")
    try:
        return resolve_below(text, roots)
    except SourceError as error:
        raise _refused(str(error)) from None


def _refused(detail: str) -> Problem:
    return Problem("path_refused", f"input: {detail}", errors=[("/input/path", detail)])
