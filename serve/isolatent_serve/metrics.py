"""What the service counts and measures, for GET /metrics in Prometheus' text format.

With several processes, prometheus_client keeps the numbers in files below PROMETHEUS_MULTIPROC_DIR, and whichever
process is asked adds them up. It looks for that variable once, when it is imported: set it before this module is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import ValueClass

from isolatent_serve.problems import CLOSED, PROBLEMS
from isolatent_serve.tally import Count, Tally

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Stage = Literal["read", "decode", "queue", "inference", "write"]

_STAGES: tuple[Stage, ...] = ("read", "decode", "queue", "inference", "write")
_REQUEST_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STAGE_BOUNDS = (0.0001, 0.00025, 0.0005, *_REQUEST_BOUNDS)
_BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a time of birth per series would double their number


class Metrics:
    """The numbers of one service.

    `request`, `rejected`, `stage`, `batch` and `hand_over` are for the thread of the event loop; what they count is
    seen when `hand_over` is called. Labels come from closed sets (route templates, codes, names of served models),
    never from what clients send.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._request = Histogram(
            "isolatent_request_seconds",
            "Time from a request's head to the end of its answer; the count is the number of requests",
            ["method", "route", "status"],
            buckets=_REQUEST_BOUNDS,
            registry=registry,
        )
        stages = Histogram(
            "isolatent_stage_seconds",
            "Time of a request in read, decode, queue, inference and write",
            ["stage"],
            buckets=_STAGE_BOUNDS,
            registry=registry,
        )
        self._batch_items = Histogram(
            "isolatent_batch_items",
            "Inputs that ran together; the sum is the number of inputs",
            ["model"],
            buckets=_BATCH_BOUNDS,
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "isolatent_batch_seconds", "Time of one batch", ["model"], buckets=_STAGE_BOUNDS, registry=registry
        )
        self._queue = Gauge(
            "isolatent_queue_items",
            "Inputs accepted and not yet answered by the model",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        rejected = Counter(
            "isolatent_rejections", "Requests answered with a problem, by its code", ["code"], registry=registry
        )
        self._model = Gauge(
            "isolatent_model_info",
            "1: the model is served on this execution provider for this reason; 0: it was, before",
            ["model", "version", "provider", "reason"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._refused = Gauge(
            "isolatent_model_refused_versions",
            "Versions in the model directory that would be served if they were good",
            ["model"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._restarted = Counter(
            "isolatent_model_restarts",
            "Worker threads replaced because they died or hung",
            ["model"],
            registry=registry,
        )
        self._jobs = Gauge(
            "isolatent_jobs",
            "Batch jobs that are kept, by their state",
            ["state"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._stored = Gauge(
            "isolatent_uploaded_bytes",
            "Bytes of all uploaded files",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._job_items = Counter(
            "isolatent_job_items", "Inputs that batch jobs are done with", ["result"], registry=registry
        )
        if ValueClass._multiprocess:
            self._scraped = _of_all_processes()
        else:
            self._scraped = registry
            ProcessCollector(registry=registry)
        # Children are looked up here rather than with .labels(), which takes longer than all the rest.
        self._requests: dict[tuple[str, str, int], Tally] = {}
        self._stages = {stage: Tally(stages.labels(stage)) for stage in _STAGES}
        self._batches: dict[str, tuple[Tally, Tally]] = {}
        self._queues: dict[str, Gauge] = {}
        self._served: dict[str, Gauge] = {}
        self._rejections = {code: Count(rejected.labels(code)) for code in (*PROBLEMS, *CLOSED)}  # from the start, as 0

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """An answered request. `route` is the template of its address."""
        key = (method, route, status)
        child = self._requests.get(key)
        if child is None:
            child = self._requests[key] = Tally(self._request.labels(method, route, status))
        child.observe(seconds)

    def stage(self, stage: Stage, seconds: float) -> None:
        """The time that a request has spent in one stage."""
        self._stages[stage].observe(seconds)

    def batch(self, model: str, items: int, seconds: float) -> None:
        """A batch that has run."""
        children = self._batches.get(model)
        if children is None:
            items_and_seconds = self._batch_items.labels(model), self._batch_seconds.labels(model)
            children = self._batches[model] = (Tally(items_and_seconds[0]), Tally(items_and_seconds[1]))
        children[0].observe(items)
        children[1].observe(seconds)

    def queue(self, model: str, items: int) -> None:
        """The number of inputs that the model has accepted and not answered, now."""
        child = self._queues.get(model)
        if child is None:
            child = self._queues[model] = self._queue.labels(model)
        child.set(items)

    def rejected(self, code: str) -> None:
        """A request that is answered with the problem `code`, or a connection that is closed for one of CLOSED."""
        self._rejections[code].add()

    def model(self, name: str, version: str, provider: str, reason: str) -> None:
        """The model `name` is served in this version, on this execution provider, from now on."""
        if name in self._served:
            self._served[name].set(0)  # files of several processes cannot forget a label
        child = self._served[name] = self._model.labels(name, version, provider, reason)
        child.set(1)
        self._restarted.labels(name)  # from the start, too

    def unloaded(self, name: str) -> None:
        """The model `name` is served no more."""
        self._served.pop(name).set(0)
        self.queue(name, 0)

    def refused(self, name: str, versions: int) -> None:
        """The number of versions of the model `name` that are refused, now."""
        self._refused.labels(name).set(versions)

    def restarted(self, model: str) -> None:
        """The worker thread of `model` was replaced."""
        self._restarted.labels(model).inc()

    def jobs(self, states: Mapping[str, int], stored: int) -> None:
        """The number of batch jobs in each state, and the bytes of uploaded files, now."""
        for state, number in states.items():
            self._jobs.labels(state).set(number)
        self._stored.set(stored)

    def job_items(self, succeeded: int, failed: int) -> None:
        """So many more inputs of batch jobs have succeeded, and failed."""
        self._job_items.labels("succeeded").inc(max(0, succeeded))
        self._job_items.labels("failed").inc(max(0, failed))

    def hand_over(self) -> None:
        """Let what was observed be seen, by scrapes of other processes too. To be called again and again."""
        for tally in (*self._requests.values(), *self._stages.values(), *chain(*self._batches.values())):
            tally.hand_over()
        for count in self._rejections.values():
            count.hand_over()

    def render(self) -> bytes:
        """The answer to a scrape: the numbers of all processes together."""
        self.hand_over()
        return generate_latest(self._scraped)


class _Processes(Collector):
    """Memory, processor time and open files of each process that has numbers in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """The usual process_ metrics, with a label `pid`."""
        families: dict[str, Metric] = {}
        for pid in sorted({file.stem.rpartition("_")[2] for file in self._folder.glob("*.db")}):
            for metric in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    family.add_sample(sample.name, {"pid": pid}, sample.value)
        yield from families.values()


def _of_all_processes() -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_Processes(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])))
    return registry
