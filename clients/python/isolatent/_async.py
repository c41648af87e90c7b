"""How `AsyncClient` sends and waits: a connection pool for each event loop, and tasks for requests at the same time.

Connections belong to the event loop that opened them. A pool is therefore kept per loop, and hangs on an asynchronous
generator: asyncio ends those when a loop ends (`asyncio.run`) and when they are collected, and with it the connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import httpx2

from isolatent import _progress
from isolatent._answers import Answer
from isolatent._backends import Dialect
from isolatent._chunks import Chunk, Gathering, Work
from isolatent._errors import IsolatentError
from isolatent._exchange import Exchange
from isolatent._files_transfer import Transfer
from isolatent._options import LIMITS, Options, tls
from isolatent._progress import Progress
from isolatent._wire import Call

_POOL_SIZE = 32
"""Requests at once in one pool, before another is opened: each one costs a look at all connections of its pool."""

R = TypeVar("R")
P = TypeVar("P")


class AsyncDriver:
    """Sends calls, and the chunks of a work, a few at once."""

    def __init__(self, dialect: Dialect, options: Options, http: httpx2.AsyncClient | None) -> None:
        self._dialect, self._options = dialect, options
        self._http = http
        self._pools: dict[asyncio.AbstractEventLoop, list[_Pool]] = {}
        self._closed = False

    @property
    def timeout(self) -> float:
        """Seconds for one request, all its attempts together."""
        return self._options.timeout

    async def send(self, call: Call, max_retries: int | None = None, transfer: Transfer | None = None) -> Answer:
        """The service's yes to `call`, after as many attempts as it takes and time allows. Raises IsolatentError.

        `transfer` is for bodies that go between the service and a file.
        """
        exchange = Exchange(call, self._dialect, self._options, max_retries)
        while True:
            outcome = await (self._transfer(exchange, transfer) if transfer else self._attempt(exchange))
            if isinstance(outcome, Answer):
                return outcome
            await asyncio.sleep(exchange.wait_after(outcome))

    async def solve(self, gathering: Gathering[R]) -> list[R]:
        """The results of one chunk, its requests one after the other. Files are read in a thread."""
        calls = gathering.calls()
        while call := await asyncio.to_thread(next, calls, None):
            try:
                gathering.take(await self.send(call), call)
            except IsolatentError as error:
                gathering.fail(error, call)
        return gathering.results()

    async def stream(self, work: Work[R]) -> AsyncGenerator[list[R], None]:
        """The results chunk by chunk, in input order. The first error cancels the rest."""
        room = asyncio.Semaphore(work.at_once)

        async def solve(chunk: Chunk) -> list[R]:
            async with room:  # held until the answer is read
                return await self.solve(work.gathering(chunk))

        pending: deque[asyncio.Task[list[R]]] = deque()
        try:
            async for chunk in work.chunks_async():
                pending.append(asyncio.create_task(solve(chunk)))
                if len(pending) == work.ahead:
                    yield await pending.popleft()
            while pending:
                yield await pending.popleft()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def collect(self, work: Work[R], progress: Progress, pack: Callable[[list[R]], P]) -> list[P]:
        """The packed results of all chunks."""
        packed = []
        with _progress.shown(progress, work.total) as report:
            async with aclosing(self.stream(work)) as chunks:
                async for results in chunks:
                    packed.append(pack(results))
                    report(len(results))
        return packed

    async def each(self, work: Work[R]) -> AsyncIterator[tuple[int, R]]:
        """The results one by one with their places."""
        index = 0
        async with aclosing(self.stream(work)) as chunks:
            async for results in chunks:
                for result in results:
                    yield index, result
                    index += 1

    async def close(self) -> None:
        """Close this loop's connections. Other loops close theirs when they next run, or when they end."""
        self._closed = True
        pools = self._pools.pop(asyncio.get_running_loop(), [])
        self._pools.clear()
        for pool in pools:
            await pool.close()

    async def _attempt(self, exchange: Exchange) -> Answer | IsolatentError:
        """One attempt: the yes, or what went wrong. The whole answer is read before the deadline."""
        arguments, left = exchange.request(), exchange.attempts.time_left()
        try:
            async with self._connections() as http, asyncio.timeout(left):
                request = http.build_request(**arguments, timeout=None)
                response = await http.send(request, follow_redirects=False)
        except TimeoutError:
            return exchange.late()
        except httpx2.RequestError as error:
            return exchange.broken(error)
        return exchange.answered(response.status_code, response.headers, response.content)

    async def _transfer(self, exchange: Exchange, transfer: Transfer) -> Answer | IsolatentError:
        """One attempt whose body goes from or to a file. No step of it takes longer than the timeout."""
        arguments, extensions = exchange.request(), exchange.attempts.extensions()
        arguments["headers"] |= transfer.headers()
        arguments["content"] = transfer.body_async(exchange.attempts)
        try:
            async with self._connections() as http:
                request = http.build_request(**arguments, extensions=_awaited(extensions))
                response = await http.send(request, stream=True, follow_redirects=False)
                async with aclosing(response):
                    content = await _content(response, exchange, transfer)
        except httpx2.RequestError as error:
            return exchange.broken(error)
        return exchange.answered(response.status_code, response.headers, content)

    @asynccontextmanager
    async def _connections(self) -> AsyncIterator[httpx2.AsyncClient]:
        """The client that was passed in, or room in a pool of the loop that runs."""
        if self._closed:
            raise RuntimeError("the client is closed; make a new one")
        if self._http:
            yield self._http
            return
        pools = self._pools_here()
        pool = await _with_room(pools)
        pool.busy += 1
        try:
            yield pool.http
        finally:
            pool.busy -= 1
            if not pool.busy and pool in pools[1:]:  # after a burst, nothing would use its connections or close them
                pools.remove(pool)
                await pool.close()

    def _pools_here(self) -> list[_Pool]:
        """The open pools of the running loop. Loops of other threads may be at this, too."""
        for loop in list(self._pools):
            if loop.is_closed():
                self._pools.pop(loop, None)
        pools = self._pools.setdefault(asyncio.get_running_loop(), [])
        pools[:] = [pool for pool in pools if not pool.http.is_closed]
        return pools


async def _with_room(pools: list[_Pool]) -> _Pool:
    """The first pool with room, or another one."""
    for pool in pools:
        if pool.busy < _POOL_SIZE:
            return pool
    pools.append(_Pool())
    await pools[-1].open()
    return pools[-1]


async def _content(response: httpx2.Response, exchange: Exchange, transfer: Transfer) -> bytes:
    """The body of an answer, empty where `transfer` took it."""
    if not transfer.accept(response.status_code):
        return await response.aread()
    async for piece in response.aiter_bytes():
        await asyncio.to_thread(transfer.write, piece)
        transfer.note(piece, exchange.attempts)
    return b""


def _awaited(extensions: dict[str, Any]) -> dict[str, Any]:
    """The same with the trace that asyncio's transport awaits."""
    tighten = extensions["trace"]

    async def trace(event: str, info: dict[str, Any]) -> None:
        tighten(event, info)

    return extensions | {"trace": trace}


class _Pool:
    """Connections that close with their event loop, or when nobody holds them any more."""

    busy = 0

    def __init__(self) -> None:
        self.http = httpx2.AsyncClient(verify=tls(), limits=LIMITS)
        self._keeper = _keep(self.http.aclose)

    async def open(self) -> None:
        """Let the running loop know of them."""
        await anext(self._keeper)

    async def close(self) -> None:
        """Close them now."""
        await self._keeper.aclose()


async def _keep(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await close()
