"""What this process may use of the machine: cores and memory, the limits of its control groups included.

Containers are limited by control groups (cgroups), which neither `os.cpu_count` nor the affinity shows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cores() -> int:
    """How many cores this process may keep busy: those of its affinity, or fewer where a cgroup grants less time."""
    granted = quota()
    return affinity() if granted is None else max(1, min(affinity(), math.ceil(granted)))


def affinity() -> int:
    """Cores that the scheduler may put this process on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota() -> float | None:
    """Cores' worth of time that the cgroups grant, such as 1.5; None without a limit."""
    found = []
    for folder in _groups("cpu"):
        if len(words := _words(folder / "cpu.max")) == 2 and words[0].isdigit():
            found.append(int(words[0]) / int(words[1]))
        period, granted = _words(folder / "cpu.cfs_period_us"), _words(folder / "cpu.cfs_quota_us")
        if period and granted and granted[0].isdigit():
            found.append(int(granted[0]) / int(period[0]))
    return min(found, default=None)


def memory_limit() -> int | None:
    """Bytes that the cgroups let this process and its like have; None without a limit."""
    found = []
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (words := _words(folder / name)) and words[0].isdigit():
                found.append(int(words[0]))
    least = min(found, default=None)
    return None if least is None or least >= 2**60 else least  # version 1 writes a huge number for none


def memory() -> int | None:
    """Bytes of memory in the machine; None where the system does not say."""
    words = dict(line.split()[:2] for line in _text(Path("/proc/meminfo")).splitlines() if len(line.split()) > 1)
    return int(words["MemTotal:"]) * 1024 if "MemTotal:" in words else None


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the cgroups of this process, version 2 or 1, from its own to the root."""
    for line in _text(_OWN).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _ROOT / controller if controllers else _ROOT  # "cpu" is a link to "cpu,cpuacct"
        own = root / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _words(file: Path) -> list[str]:
    return _text(file).split()


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
