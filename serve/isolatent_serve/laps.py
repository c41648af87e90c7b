"""Where the time of one request goes: its stages, one after the other."""

from __future__ import annotations

from time import perf_counter
from typing import Literal

from starlette.requests import Request

from isolatent_serve.metrics import Metrics, Stage

Lap = Stage | Literal["model"]
"""`model` is the time in the engine, which measures its parts, queue and inference, itself."""


class Laps:
    """A stopwatch that starts when it is made; each lap begins where the one before has ended."""

    __slots__ = ("_began", "_metrics")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._began = perf_counter()

    def done(self, lap: Lap) -> None:
        """The lap ends now."""
        now = perf_counter()
        if lap != "model":
            self._metrics.stage(lap, now - self._began)
        self._began = now


def of(request: Request, metrics: Metrics) -> Laps:
    """The stopwatch of a request; a traced request's makes a span of each lap."""
    traced: type[Laps] | None = request.scope["state"].get("laps")
    return Laps(metrics) if traced is None else traced(metrics)
