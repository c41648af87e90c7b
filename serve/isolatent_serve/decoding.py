"""Decoding inputs beside the event loop: on a few threads, and files that are not trusted in processes of their own.

For the former threads are enough: the codecs release the interpreter lock while they work.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from isolatent_export.inputs import InputError, Limits
from isolatent_export.manifest import InputSpec
from isolatent_serve import inputs
from isolatent_serve.inputs import Array, Files, Inputs, Items
from isolatent_serve.isolation import needs_process
from isolatent_serve.parsing import Parsers

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
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run `function` on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def decode(self, encoded: Inputs, spec: InputSpec) -> Decoded:
        """Decode all inputs of a request. Raises InputError for what is wrong with all of them together."""
        files = isinstance(encoded, Files)  # nothing to do for these but to name them
        items = encoded.items(spec, self._limits) if files else await self.call(encoded.items, spec, self._limits)
        if isinstance(items.values, np.ndarray):
            return Decoded(items, items.values, {})
        values = list(items.values)
        if not (files and all(needs_process(file, spec, self._limits) for file in values)):
            values = await self._on_threads(values, spec)
        outcomes = await self._in_processes(values, spec)
        errors = {place: outcome for place, outcome in enumerate(outcomes) if isinstance(outcome, InputError)}
        arrays = [outcome for outcome in outcomes if not isinstance(outcome, InputError)]
        return Decoded(items, np.stack(arrays) if arrays else inputs.empty(spec), errors)

    async def _on_threads(self, values: list[Any], spec: InputSpec) -> list[Array | InputError | bytes]:
        """Decode what may be decoded here; what is left are files, as bytes."""
        size = -(-len(values) // self._threads)
        parts = [values[start : start + size] for start in range(0, len(values), size)]
        done = await asyncio.gather(*(self.call(_decode_all, part, spec, self._limits) for part in parts))
        return [outcome for part in done for outcome in part]

    async def _in_processes(self, values: list[Any], spec: InputSpec) -> list[Array | InputError]:
        """Parse what is still a file."""
        places = [place for place, value in enumerate(values) if isinstance(value, bytes)]
        if places:
            parsed = await self._parsers.parse([values[place] for place in places], spec, self._limits)
            for place, outcome in zip(places, parsed, strict=True):
                values[place] = outcome
        return values

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(cancel_futures=True)


def _decode_all(items: list[Any], spec: InputSpec, limits: Limits) -> list[Array | InputError | bytes]:
    return [_decode_one(item, spec, limits) for item in items]


def _decode_one(item: Any, spec: InputSpec, limits: Limits) -> Array | InputError | bytes:
    try:
        return inputs.decode(item, spec, limits)
    except InputError as error:
        return error
