"""What is deleted when its time is over, and what processes have left behind that ended before they were done."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from isolatent_serve.jobs.folder import PLAN, UNFINISHED, UNPACKED
from isolatent_serve.jobs.rows import OVER
from isolatent_serve.jobs.store import Store

SWEEP_SECONDS = 60.0
"""Between two looks."""
STRAY_SECONDS = 3600.0
"""After which a file that nobody knows of, and nothing was added to, is not one that is arriving."""

log = logging.getLogger("isolatent_serve.jobs")


def sweep(directory: Path, store: Store) -> None:
    """Delete expired files and jobs, strays, and what jobs that are over have begun and will not go on with.

    What cannot be deleted is tried again later, as a stray.
    """
    files, jobs = store.expire()
    if files or jobs:
        log.info("deleted what has expired: %d files, %d jobs", len(files), len(jobs))
    found = [*(directory / "files").iterdir(), *(directory / "jobs").iterdir()]  # before looking who is known
    gone = {file.id for file in files} | {job.id for job in jobs}
    known = store.identities()
    for path in found:
        identity = path.name.partition(".")[0]
        if identity in gone or (identity not in known and _is_old(path)):
            _remove(path)
            continue
        begun = [path / name for name in (UNPACKED, f"{PLAN}{UNFINISHED}") if (path / name).exists()]
        if begun and store.state(identity) in OVER:
            for folder in begun:
                _remove(folder)


def _is_old(path: Path) -> bool:
    try:
        return path.stat().st_mtime < time.time() - STRAY_SECONDS
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
