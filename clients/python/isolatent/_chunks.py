"""Many inputs: cut into chunks, each on its way to the service and back, with results in input order. No I/O.

An input is read when its chunk is cut and becomes bytes when its request is made, so that a generator may be longer
than memory, and files are open no longer than it takes to read them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sized
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from isolatent import _answers, _wire
from isolatent._answers import Answer
from isolatent._arrays import Array
from isolatent._errors import APIStatusError, APITimeoutError, InputError, IsolatentError
from isolatent._inputs import Item, is_one, name_of
from isolatent._questions import Question
from isolatent._wire import Call

R = TypeVar("R")
OnError = Literal["raise", "item"]

_ABOUT_THE_REQUEST = frozenset({400, 401, 403, 404, 405, 406, 409, 415})
"""Statuses that any other inputs would get as well."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive inputs, as the caller gave them; or the exception that the caller's own iterable ended with."""

    first: int
    values: tuple[Any, ...]
    failure: Exception | None = None


@dataclass(frozen=True)
class Work(Generic[R]):
    """A question about many inputs. Raises ValueError for options that make no sense."""

    question: Question[R]
    inputs: Any
    """One input, an iterable or an asynchronous iterable of them."""
    batch_size: int
    concurrency: int
    on_error: OnError = "raise"
    total: int | None = field(init=False)
    """How many inputs there are, where that can be told."""

    def __post_init__(self) -> None:
        """Check the options, and count."""
        for name in ("batch_size", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}, expected 1 or more")
        if self.on_error not in ("raise", "item"):
            raise ValueError(f"on_error={self.on_error!r}, expected raise or item")
        object.__setattr__(self, "total", _count(self.inputs))

    @property
    def at_once(self) -> int:
        """How many chunks may be with the service: no more than there are."""
        chunks = self.concurrency if self.total is None else -(-self.total // self.batch_size)
        return max(1, min(self.concurrency, chunks))

    @property
    def ahead(self) -> int:
        """How many chunks may be read and not yet handed over: some wait for their turn, so that none is waited for."""
        return 2 * self.at_once

    def chunks(self) -> Iterator[Chunk]:
        """The inputs in chunks, each read when it is asked for."""
        cutter = _Cutter(self.batch_size)
        try:
            for value in [self.inputs] if is_one(self.inputs) else self.inputs:
                if chunk := cutter.add(value):
                    yield chunk
        except Exception as error:  # of the caller's own: raised in its place, behind the results before it
            yield from cutter.rest(error)
            return
        yield from cutter.rest()

    async def chunks_async(self) -> AsyncIterator[Chunk]:
        """The same of an asynchronous iterable, or of any other."""
        if not isinstance(self.inputs, AsyncIterable):
            for chunk in self.chunks():
                yield chunk
            return
        cutter = _Cutter(self.batch_size)
        failure = None
        try:
            async for value in self.inputs:
                if full := cutter.add(value):
                    yield full
        except Exception as error:
            failure = error
        for last in cutter.rest(failure):
            yield last

    def gathering(self, chunk: Chunk) -> Gathering[R]:
        """The way of one chunk."""
        return Gathering(chunk, self.question, self.on_error)


class Gathering(Generic[R]):
    """One chunk on its way: the requests that it takes, and its results by the place of the input.

    With on_error="item" an error takes the place of the result of its input, unless other inputs would get it as well:
    then, and with "raise", it is raised.
    """

    def __init__(self, chunk: Chunk, question: Question[R], on_error: OnError = "raise") -> None:
        self._chunk, self._question, self._in_place = chunk, question, on_error == "item"
        self._results: dict[int, R | IsolatentError] = {}
        self._again: deque[tuple[Item, ...]] = deque()

    def calls(self) -> Iterator[Call]:
        """The requests, to be answered one after the other; inputs are read no further than the one in hand."""
        if self._chunk.failure:
            raise self._chunk.failure
        for group in _wire.batches(self._items(), len(self._chunk.values)):
            yield self._call(group)
        while self._again:
            yield self._call(self._again.popleft())

    def take(self, answer: Answer, call: Call) -> None:
        """Keep the results of a request. Raises APIResponseError."""
        indices = [item.index for item in call.items]
        self._results.update(zip(indices, self._question.read(answer, call), strict=True))
        if self._in_place:
            self._results.update(_answers.refused_items(answer, call))

    def fail(self, error: IsolatentError, call: Call) -> None:
        """Keep the error of a request in the place of its inputs, or raise it."""
        if not (self._in_place and _is_about_inputs(error)):
            raise error
        bad = _answers.item_errors(error, call) or {item.index: error for item in call.items}
        self._results.update(bad)
        if rest := tuple(item for item in call.items if item.index not in bad):
            self._again.append(rest)

    def results(self) -> list[R]:
        """A result per input, in input order; with on_error="item" an IsolatentError may be in its place."""
        return [self._results[index] for index in sorted(self._results)]  # type: ignore[misc]

    def _call(self, items: tuple[Item, ...]) -> Call:
        call = self._question.ask(items)
        return replace(call, params=call.params | {"on_error": "item"}) if self._in_place else call

    def _items(self) -> Iterator[Item]:
        for index, value in enumerate(self._chunk.values, self._chunk.first):
            try:
                yield self._question.item(value, index)
            except InputError as error:
                error.inputs, error.indices = (name_of(value, index),), (index,)
                if not self._in_place:
                    raise
                self._results[index] = error


class _Cutter:
    """Values in, a chunk out whenever there are enough."""

    def __init__(self, size: int) -> None:
        self._size, self._first = size, 0
        self._values: list[Any] = []

    def add(self, value: Any) -> Chunk | None:
        self._values.append(value)
        return self._cut() if len(self._values) == self._size else None

    def rest(self, failure: Exception | None = None) -> Iterator[Chunk]:
        """What is left, and the failure that came next."""
        if self._values:
            yield self._cut()
        if failure:
            yield Chunk(self._first, (), failure)

    def _cut(self) -> Chunk:
        chunk = Chunk(self._first, tuple(self._values))
        self._first += len(self._values)
        self._values = []
        return chunk


def one(value: Any, question: Question[R], instead: str) -> Gathering[R]:
    """The way of a single input. Raises InputError for several."""
    if not is_one(value):
        raise InputError(f"a {type(value).__name__} of several inputs; use {instead}, or pass one input")
    return Gathering(Chunk(0, (value,)), question)


def _count(inputs: Any) -> int | None:
    if isinstance(inputs, AsyncIterable):
        return None
    if is_one(inputs):
        return 1
    if isinstance(inputs, Array):
        return int(inputs.shape[0])
    return len(inputs) if isinstance(inputs, Sized) else None


def _is_about_inputs(error: IsolatentError) -> bool:
    """Whether other inputs may fare better: not where the address, the key, the model or an option is wrong."""
    if isinstance(error, APIStatusError):
        return error.status not in _ABOUT_THE_REQUEST
    return isinstance(error, InputError | APITimeoutError)
