"""How much one model has accepted and not yet done, and what is answered when it is enough: 429, at once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from isolatent_serve.outputs import Array
from isolatent_serve.problems import Problem

_MEMORY = 0.9
"""Weight of the past in the time that an item takes."""


class Admission:
    """Counts items and their bytes from acceptance to answer, against a limit of each.

    Used on the thread of the event loop.
    """

    def __init__(self, name: str, items: int, size: int) -> None:
        self._name = name
        self._most = (items, size)
        self._items = 0
        self._bytes = 0
        self._seconds_per_item = 0.0

    @property
    def items(self) -> int:
        """Items accepted and not yet done."""
        return self._items

    def require_room(self) -> None:
        """Raise Problem `queue_full` when not even one more item fits."""
        most_items, most_bytes = self._most
        if self._items >= most_items or self._bytes >= most_bytes:
            raise self._full(1)

    @contextlib.contextmanager
    def expected(self) -> Iterator[None]:
        """Count one item until the block ends: a request that is being decoded. Raises Problem `queue_full`."""
        self.require_room()
        self._items += 1
        try:
            yield
        finally:
            self._items -= 1

    def take(self, items: Array) -> None:
        """Count `items` (N, ...) until they are released. Raises Problem `queue_full`.

        When nothing else is held, everything fits: no request is too large for ever.
        """
        most_items, most_bytes = self._most
        fits = self._items + len(items) <= most_items and self._bytes + items.nbytes <= most_bytes
        if self._items and not fits:
            raise self._full(len(items))
        self._items += len(items)
        self._bytes += items.nbytes

    def release(self, items: Array) -> None:
        """Count `items` no more."""
        self._items -= len(items)
        self._bytes -= items.nbytes

    def observe(self, items: int, seconds: float) -> None:
        """Remember how long a batch took."""
        pace = seconds / items
        self._seconds_per_item = _MEMORY * self._seconds_per_item + (1 - _MEMORY) * pace

    def _full(self, wanted: int) -> Problem:
        seconds = max(1, math.ceil(self._items * self._seconds_per_item))
        detail = (
            f"{self._items} inputs wait for model {self._name}, {wanted} more do not fit; "
            f"try again in {seconds} s, or send fewer inputs at a time"
        )
        return Problem("queue_full", detail, headers={"Retry-After": str(seconds)})
