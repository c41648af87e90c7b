"""What an engine tells about its work: to the service's metrics, or to nobody."""

from __future__ import annotations

from typing import Literal, Protocol


class Observer(Protocol):
    """Hears of batches and requests, on the thread of the event loop."""

    def stage(self, stage: Literal["queue", "inference"], seconds: float, /) -> None:
        """The time that a request has spent waiting, or from its first batch to the end of its last."""

    def batch(self, model: str, items: int, seconds: float, /) -> None:
        """A batch that has run."""

    def restarted(self, model: str, /) -> None:
        """The worker thread was lost and is replaced."""


class Silence:
    """An observer that keeps nothing."""

    def stage(self, stage: Literal["queue", "inference"], seconds: float, /) -> None:
        """Nothing."""

    def batch(self, model: str, items: int, seconds: float, /) -> None:
        """Nothing."""

    def restarted(self, model: str, /) -> None:
        """Nothing."""
