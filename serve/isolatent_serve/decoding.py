"""Decoding inputs: small ones at once, others on a few threads, and files that are not trusted in their own processes.

Threads are enough for trusted ones: the codecs release the interpreter lock while they work.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from isolatent_export.inputs import InputError, Limits, interruption, require_memory
from isolatent_export.manifest import InputSpec
from isolatent_serve import at_once, inputs
from isolatent_serve.inputs import Array, Inputs, Items
from isolatent_serve.isolation import needs_process
from isolatent_serve.parsing import Parsers
from isolatent_serve.priority import give_way

T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """The inputs that could be decoded, and what is wrong with the others, by place.

    `array` has shape (N - len(errors), H, W, C) or (N - len(errors), P, 3), in the order of the request.
    """

    items: Items
    array: Array
    errors: dict[int, InputError]

    @property
    def count(self) -> int:
        """N, the number of inputs in the request."""
        return len(self.items.values)


class Decoder:
    """A pool of threads for work on bytes, and the way to the parser processes. Close it when the service stops."""

    def __init__(self, limits: Limits, parsers: Parsers) -> None:
        self._limits = limits
        self._parsers = parsers
        self._threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode", initializer=give_way)

    def use(self, parsers: Parsers) -> None:
        """Give files to `parsers` from now on."""
        self._parsers = parsers

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run `function` on one of the threads. When the caller is cancelled, it stops at its next `check`."""
        flag = interruption.Flag()
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, interruption.run, flag, function, *arguments)
        finally:
            flag.raised = True

    def decode_at_once(self, encoded: Inputs, spec: InputSpec) -> Decoded | None:
        """Decode here and now what takes a fraction of a millisecond; None when there is more to it.

        Raises InputError for what is wrong with all inputs together.
        """
        if not encoded.are_few(spec):
            return None
        items = encoded.items(spec, self._limits)
        if isinstance(items.values, np.ndarray):
            return Decoded(items, items.values, {})
        values = list(items.values)
        if not at_once.are_few(values):
            return None
        values = _decode_all(values, spec, self._limits, lambda file: not at_once.is_quick(file, spec))
        return _decoded(items, values, spec) if all(map(_is_outcome, values)) else None

    async def decode(self, encoded: Inputs, spec: InputSpec) -> Decoded:
        """Decode all inputs of a request. Raises InputError for what is wrong with all of them together.

        Each place leaves to the next what it must not do: this thread, other threads, other processes.
        """
        few = encoded.are_few(spec)
        items = encoded.items(spec, self._limits) if few else await self.call(encoded.items, spec, self._limits)
        if isinstance(items.values, np.ndarray):
            return Decoded(items, items.values, {})
        require_memory(len(items.values), spec, self._limits)
        values = list(items.values)
        if few and at_once.are_few(values):
            values = _decode_all(values, spec, self._limits, lambda file: not at_once.is_quick(file, spec))
        if not all(map(_is_outcome, values)):
            await self._on_threads(values, spec)
            await self._in_processes(values, spec)
        return _decoded(items, values, spec)

    async def _on_threads(self, values: list[Any], spec: InputSpec) -> None:
        """Decode, in their places, what may be decoded in this process; what is left are files, as bytes."""

        def is_foreign(item: Any) -> bool:
            return isinstance(item, bytes) and needs_process(item, spec, self._limits)

        places = [place for place, value in enumerate(values) if not (_is_outcome(value) or is_foreign(value))]
        size = -(-len(places) // self._threads) or 1
        parts = [[values[place] for place in places[start : start + size]] for start in range(0, len(places), size)]
        done = await asyncio.gather(*(self.call(_decode_all, part, spec, self._limits, is_foreign) for part in parts))
        _put(values, places, chain.from_iterable(done))

    async def _in_processes(self, values: list[Any], spec: InputSpec) -> None:
        """Parse, in their places, what are still files."""
        places = [place for place, value in enumerate(values) if isinstance(value, bytes)]
        if places:
            _put(values, places, await self._parsers.parse([values[place] for place in places], spec, self._limits))

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(cancel_futures=True)


def _decoded(items: Items, values: list[Any], spec: InputSpec) -> Decoded:
    errors = {place: value for place, value in enumerate(values) if isinstance(value, InputError)}
    arrays = [value for value in values if not isinstance(value, InputError)] if errors else values
    return Decoded(items, inputs.stacked(arrays, spec), errors)


def _is_outcome(value: Any) -> bool:
    return isinstance(value, np.ndarray | InputError)


def _put(values: list[Any], places: list[int], outcomes: Iterable[Any]) -> None:
    for place, outcome in zip(places, outcomes, strict=True):
        values[place] = outcome


def _decode_all(
    items: list[Any], spec: InputSpec, limits: Limits, leave: Callable[[bytes], bool]
) -> list[Array | InputError | bytes]:
    return [_decode_one(item, spec, limits, leave) for item in items]


def _decode_one(
    item: Any, spec: InputSpec, limits: Limits, leave: Callable[[bytes], bool]
) -> Array | InputError | bytes:
    interruption.check()
    try:
        return inputs.decode(item, spec, limits, leave)
    except InputError as error:
        return error
