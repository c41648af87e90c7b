"""Putting a folder in its place: built beside it and moved there when complete. What it replaces stays until then."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from isolatent_export.bundle import BundleError


@contextmanager
def replacing(
    out: str | os.PathLike[str], ours: Callable[[Path], bool], *, overwrite: bool, other: str = "another --out"
) -> Iterator[Path]:
    """A new work folder that becomes `out` when the block ends well; otherwise nothing is left of it.

    Raises BundleError as `require_free` does, before the block, and for each OSError that the block raises.
    """
    place = require_free(out, ours, overwrite=overwrite, other=other)
    with _explained(out, other):
        place.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            yield work
            work.chmod(0o755)
            _move(work, place)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def require_free(
    out: str | os.PathLike[str], ours: Callable[[Path], bool], *, overwrite: bool, other: str = "another --out"
) -> Path:
    """`out` resolved, when there is nothing, an empty folder or, with `overwrite`, a folder of which `ours` is true.

    Raises BundleError when anything else is there, such as a link or the current folder. `other`: what to choose then.
    """
    with _explained(out, other):
        if Path(out).is_symlink():
            target = os.path.realpath(out)
            raise BundleError(f"{out} is a symbolic link to {target}; name that folder, or choose {other}")
        place = Path(out).resolve()
        if Path.cwd().is_relative_to(place):
            raise BundleError(f"{out} is the current folder, or contains it; run this elsewhere, or choose {other}")
        if files := [each for each in place.parents if each.is_file()]:
            raise BundleError(f"{out} cannot be a folder below the file {files[0]}; choose {other}")
        if not place.exists():
            return place
        known = ours(place)
        if place.is_dir() and (not any(place.iterdir()) or (known and overwrite)):
            return place
    raise BundleError(f"{out} exists; {'replace it with --overwrite, or ' if known else ''}choose {other}")


@contextmanager
def _explained(out: str | os.PathLike[str], other: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise BundleError(f"{out} cannot be written ({reason}); make room there, or choose {other}") from None


def _move(work: Path, place: Path) -> None:
    """Make `work` the folder `place`; what is there already is removed last, and put back when that fails."""
    if not place.exists():
        work.rename(place)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name}.old-", dir=place.parent))
    try:
        place.rename(old)  # onto an empty folder, which it replaces
        work.rename(place)
    finally:
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(place)
