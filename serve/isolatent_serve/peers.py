"""What the processes of one service know of each other: a page of memory that they share, and nothing else."""

from __future__ import annotations

import mmap
import os
import time
from enum import IntEnum

_SHARED = 1
"""Numbers of all, before those of each process: whether the service drains."""
_EACH = 3
"""Numbers of each process: its state, its connections, when it was last heard of."""


class State(IntEnum):
    """How far a process is."""

    UNREADY = 0
    READY = 1
    GONE = 2
    """It has finished what it accepted, or there is no such process at the moment."""


class Peers:
    """The page, as process number `place` sees it. A process without peers has a page of its own.

    Each number is written by one process only: that of the place, or the supervisor while there is none.
    """

    def __init__(self, count: int = 1, place: int = 0, handle: int = -1) -> None:
        """`handle` is a descriptor that `create_handle` made; -1 takes memory that nobody shares."""
        self.count = count
        self._page = memoryview(mmap.mmap(handle, mmap.PAGESIZE)).cast("i")
        self._mine = _SHARED + _EACH * place

    @staticmethod
    def create_handle() -> int:
        """A descriptor of a new page, to be inherited."""
        handle = os.memfd_create("isolatent-peers")
        os.truncate(handle, mmap.PAGESIZE)
        return handle

    def at(self, place: int) -> Peers:
        """The same page as process number `place` sees it."""
        other = object.__new__(Peers)
        other.count, other._page, other._mine = self.count, self._page, _SHARED + _EACH * place
        return other

    @property
    def draining(self) -> bool:
        """Whether the whole service is ending."""
        return self._page[0] != 0

    @draining.setter
    def draining(self, value: bool) -> None:
        self._page[0] = value

    @property
    def state(self) -> State:
        """How far this process is."""
        return State(self._page[self._mine])

    @state.setter
    def state(self, state: State) -> None:
        self._page[self._mine] = state
        self._page[self._mine + 2] = int(time.monotonic())

    @property
    def silence(self) -> float:
        """Seconds since this process last set its state."""
        return time.monotonic() - self._page[self._mine + 2]

    @property
    def connections(self) -> int:
        """Connections open to this process."""
        return self._page[self._mine + 1]

    @connections.setter
    def connections(self, number: int) -> None:
        self._page[self._mine + 1] = number

    @property
    def fewest(self) -> int:
        """Connections of the ready process that has the fewest, or of this one."""
        first = [_SHARED + _EACH * place for place in range(self.count)]
        others = [self._page[start + 1] for start in first if self._page[start] == State.READY]
        return min([self.connections, *others])

    def leaves_to_others(self, seconds: float) -> bool:
        """Whether this process is not ready, and another one is that was heard of in the last `seconds`."""
        if self.state is State.READY:
            return False
        others = (self.at(place) for place in range(self.count))
        return any(other.state is State.READY and other.silence < seconds for other in others)

    def all(self, state: State) -> bool:
        """Whether every process is that far."""
        return all(self._page[_SHARED + _EACH * place] == state for place in range(self.count))
