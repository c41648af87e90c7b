"""A bound for the memory that one piece of work may take, in a process that goes on afterwards."""

from __future__ import annotations

import os
import resource

_PAGE = resource.getpagesize()


class Confinement:
    """Within it, this process may reserve so many more MiB of address space; what wants more gets a MemoryError.

    Entering and leaving takes a few microseconds, so that each file can have its own. Not for several threads.
    """

    def __init__(self, megabytes: int) -> None:
        self._bytes = megabytes * 2**20
        self._status = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._before = resource.getrlimit(resource.RLIMIT_AS)

    def __enter__(self) -> None:
        pages, _ = os.pread(self._status, 64, 0).split(maxsplit=1)
        soft, hard = self._before
        bound = int(pages) * _PAGE + self._bytes
        resource.setrlimit(resource.RLIMIT_AS, (bound if soft == resource.RLIM_INFINITY else min(bound, soft), hard))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self._before)

    def __del__(self) -> None:
        os.close(self._status)
