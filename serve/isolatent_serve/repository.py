"""The model directory: DIR/NAME/VERSION are bundles, or DIR/NAME is one itself. It is only read, and reading blocks."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from isolatent_export import Bundle, BundleError
from isolatent_export.bundle import MANIFEST

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Name, size, time of change and of status change (nanoseconds) of each file: another one when anything was written."""


@dataclass(frozen=True)
class Candidate:
    """A folder that may hold a bundle. `version` is the folder's name, or None for DIR/NAME that is one itself."""

    name: str
    version: str | None
    path: Path
    fingerprint: Fingerprint

    def open(self) -> Bundle:
        """The bundle, which is what its folders say. Its files are not checked yet. Raises BundleError."""
        bundle = Bundle.open(self.path)
        manifest = bundle.manifest
        if manifest.name != self.name:
            raise BundleError(
                f"{self.path}: the bundle is named {manifest.name}, the folder {self.name}; "
                f"move it to {manifest.name}/{manifest.version}"
            )
        if self.version is not None and manifest.version != self.version:
            raise BundleError(
                f"{self.path}: the bundle is version {manifest.version}, the folder {self.version}; "
                f"move it to {manifest.name}/{manifest.version}, or export it with --version {self.version}"
            )
        return bundle


class Repository:
    """What is in a model directory now. Hidden folders are passed over: copy into one, then rename it."""

    def __init__(self, path: Path) -> None:
        """Raises BundleError when `path` is no directory, or is a bundle itself."""
        self.path = path
        if not path.is_dir():
            raise BundleError(f"{path}: no such directory; make it, and put bundles there as NAME/VERSION")
        if (path / MANIFEST).exists():
            raise BundleError(f"{path}: a bundle, not a directory of models; run: isolatent serve {path}")

    def scan(self) -> dict[str, list[Candidate]]:
        """The candidates of each name, the newest first. Raises OSError when the directory cannot be read."""
        folders = [entry for entry in sorted(self.path.iterdir()) if not entry.name.startswith(".") and entry.is_dir()]
        found = {folder.name: _candidates(folder) for folder in folders}
        return {name: candidates for name, candidates in found.items() if candidates}

    def shorten(self, reason: str) -> str:
        """`reason` with paths as seen from the directory: clients read it too."""
        return reason.replace(f"{self.path}{os.sep}", "")


def natural(version: str) -> tuple[list[str | int], str]:
    """Key that sorts versions by their numbers: 2 < 10, 1.9 < 1.10, v2 < v10.

    Otherwise by their letters, and what goes on is newer: 1.0 < 1.0-rc1 < 1.0.1.
    """
    parts = re.split(r"(\d+)", version, flags=re.ASCII)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], version


def _candidates(folder: Path) -> list[Candidate]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:  # removed since it was seen
        return []
    versions = [entry for entry in entries if entry.is_dir()]
    if folder / MANIFEST in entries or (entries and not versions):  # the latter is a bundle that is still being copied
        return [Candidate(folder.name, None, folder, _fingerprint(folder))]
    versions.sort(key=lambda version: natural(version.name), reverse=True)
    return [Candidate(folder.name, version.name, version, _fingerprint(version)) for version in versions]


def _fingerprint(folder: Path) -> Fingerprint:
    facts = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # files come and go while somebody copies
        for entry in entries:
            stat = entry.stat(follow_symlinks=False)
            facts.append((entry.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(sorted(facts))
