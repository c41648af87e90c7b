"""What is counted in this process, and added to the metrics of Prometheus' client all at once, now and then.

A metric takes each observation under locks, and with several processes writes it into a mapped file; a small request
makes half a dozen of them.
"""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client import Counter, Histogram


class Tally:
    """The observations of one histogram without labels, or of one child. Not thread-safe."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_sum")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._bounds: list[float] = histogram._upper_bounds
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def hand_over(self) -> None:
        """Add what was counted since the last time to the histogram."""
        for place, count in enumerate(self._counts):
            if count:
                self._histogram._buckets[place].inc(count)
                self._counts[place] = 0
        if self._sum:
            self._histogram._sum.inc(self._sum)
            self._sum = 0.0


class Count:
    """The increases of one counter without labels, or of one child. Not thread-safe."""

    __slots__ = ("_count", "_counter")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._count = 0

    def add(self) -> None:
        """Count one more."""
        self._count += 1

    def hand_over(self) -> None:
        """Add what was counted since the last time to the counter."""
        if self._count:
            self._counter.inc(self._count)
            self._count = 0
