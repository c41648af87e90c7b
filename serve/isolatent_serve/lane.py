"""The lane of small requests: what arrives whole, is decoded at once and answered briefly takes no task, no framework.

Those take longer than all else that is done for such a request. Whatever is unusual about one, or wrong with it, goes
the normal way, which answers just the same, or says what is wrong: the lane leaves it before anything of that can be
seen. Only that the queue is full is said here, so that it is said at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from isolatent_serve import access, answers, bodies, latents, options
from isolatent_serve.bodies import Body
from isolatent_serve.decoding import Decoded
from isolatent_serve.outputs import Output
from isolatent_serve.problems import Problem
from isolatent_serve.question import ask
from isolatent_serve.registry import Model
from isolatent_serve.ride import Ride, Road
from isolatent_serve.service import Service

MOST_BYTES = 256 * 2**10
"""Of a body."""

_ONCE = {
    name.lower().encode(): name for name in ("Content-Type", "Content-Length", "Accept", "Authorization", access.HEADER)
}
_UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"content-encoding", b"upgrade"})

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class Entry:
    """A request whose head has arrived: what it asks for, its headers by name, the work that it is, and since when."""

    path: str
    query: bytes
    output: Output
    given: dict[str, str]
    work: asyncio.Future[None]
    since: float


class Lane:
    """The way of one service's small requests. `outputs` are by the path of their address."""

    def __init__(self, service: Service, outputs: Mapping[str, Output]) -> None:
        self._service = service
        self._metrics = service.metrics
        self._limits = service.settings.limits
        self._of_inputs = self._limits.inputs
        self._outputs = {path.encode(): (path, output) for path, output in outputs.items()}
        self._rides: dict[Ride, None] = {}  # the oldest first

    def enter(self, url: bytes, headers: Headers) -> Entry | None:
        """Accept a POST request for the lane, of which the body is still to come; None when it must go the normal way.

        What entered is to be taken, or to leave.
        """
        raw_path, _, query = url.partition(b"?")
        found = self._outputs.get(raw_path)
        given = _read(headers) if found else None
        if not found or given is None or not 0 < int(given.get("Content-Length", 0)) <= MOST_BYTES:
            return None
        try:
            self._service.require_open()
        except Problem:
            return None
        return Entry(found[0], query, found[1], given, self._service.begin_work(), perf_counter())

    def take(self, road: Road, entry: Entry, body: bytes) -> Ride | None:
        """Begin to answer a request that is here whole; None when it must leave after all."""
        try:
            return self._take(road, entry, body)
        except Exception:  # Problem, InputError or a fault of ours: the normal way meets it again, and says so
            return None

    def leave(self, entry: Entry) -> None:
        """The request goes the normal way, and its work is counted there."""
        self._service.end_work(entry.work)

    def inspect(self) -> None:
        """Answer the requests whose deadline has passed. To be called again and again."""
        for ride in tuple(self._rides):
            if not ride.expire():
                return

    def _take(self, road: Road, entry: Entry, data: bytes) -> Ride | None:
        began, given = perf_counter(), entry.given
        state: dict[str, Any] = {"request_id": access.request_id(given.get(access.HEADER, ""))}
        if self._service.keys:
            state["key"] = self._service.keys.name([given["Authorization"]] if "Authorization" in given else [])
        parse = bodies.quick_reader(given.get("Content-Type", ""), len(data), bodies.accepted(entry.output))
        if parse is None:
            return None
        body = parse(data, given["Content-Type"], self._of_inputs)
        chosen = options.read(entry.query, body.fields, entry.output)
        model = self._service.models.find(chosen.model)
        options.require_dimensions(chosen, model.manifest)
        model.require_ready()
        read = perf_counter()
        try:
            model.engine.require_room()
        except Problem as full:
            refused = self._ride(road, entry, state, data, began)
            refused.refuse(full)
            return refused
        decoded = self._decode(entry.output, body, model)
        if decoded is None or not _is_brief(entry.output, model, decoded):
            return None
        question = ask(model, entry.output, chosen, decoded, given.get("Accept"), self._limits.decoded_bytes)
        ride = self._ride(road, entry, state, data, began)  # from here on it cannot leave
        self._metrics.stage("read", read - entry.since)
        self._metrics.stage("decode", perf_counter() - read)
        ride.start(question)
        return ride

    def _decode(self, output: Output, body: Body, model: Model) -> Decoded | None:
        """What can be decoded at once; None when there is more to it."""
        if not output.of_latents:
            return self._service.decoder.decode_at_once(body.inputs, model.manifest.input)
        return latents.decode(body.inputs, model.manifest.latent.size, self._of_inputs)

    def _ride(self, road: Road, entry: Entry, state: dict[str, Any], data: bytes, began: float) -> Ride:
        self._service.holding.add(len(data))
        ride = Ride(self._service, road, entry.path, state, began, entry.since, partial(self._end, entry, len(data)))
        self._rides[ride] = None
        return ride

    def _end(self, entry: Entry, size: int, ride: Ride) -> None:
        self._service.holding.release(size)
        self._service.end_work(entry.work)
        del self._rides[ride]


def _read(headers: Headers) -> dict[str, str] | None:
    """The headers that matter here, by name; None when there is an unusual one, or one of them twice."""
    given: dict[str, str] = {}
    for name, value in headers:
        known = _ONCE.get(name)
        if known:
            if known in given:
                return None
            given[known] = value.decode("latin-1")
        elif name in _UNUSUAL or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
    return given


def _is_brief(output: Output, model: Model, decoded: Decoded) -> bool:
    """Whether all inputs could be decoded, and the answer is written at once, in any format."""
    numbers = decoded.count * sum(map(math.prod, output.shapes(model.manifest).values()))
    return not decoded.errors and 4 * numbers <= answers.QUICK_TEXT_BYTES
