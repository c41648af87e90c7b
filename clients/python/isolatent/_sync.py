"""How `Client` sends and waits: one connection pool, and threads for requests at the same time."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import httpx2

from isolatent import _progress, _transport
from isolatent._answers import Answer
from isolatent._backends import Dialect
from isolatent._chunks import Gathering, Work
from isolatent._errors import IsolatentError
from isolatent._exchange import Exchange
from isolatent._files_transfer import Transfer
from isolatent._options import Options
from isolatent._progress import Progress
from isolatent._retry import Attempts
from isolatent._wire import Call

R = TypeVar("R")
P = TypeVar("P")


class Driver:
    """Sends calls, and the chunks of a work, a few at once."""

    def __init__(self, dialect: Dialect, options: Options, http: httpx2.Client | None) -> None:
        self._dialect, self._options = dialect, options
        self._http = http or _transport.client()
        # Also closes the connections of a client that is forgotten, when it is collected.
        self.close = weakref.finalize(self, self._http.close) if http is None else _leave_open

    @property
    def timeout(self) -> float:
        """Seconds for one request, all its attempts together."""
        return self._options.timeout

    def send(
        self,
        call: Call,
        max_retries: int | None = None,
        pause: Callable[[float], bool | None] = time.sleep,
        transfer: Transfer | None = None,
    ) -> Answer:
        """The service's yes to `call`, after as many attempts as it takes and time allows.

        Raises IsolatentError. `pause` waits for some seconds and returns whether to give up; `transfer` is for bodies
        that go between the service and a file.
        """
        exchange = Exchange(call, self._dialect, self._options, max_retries)
        while True:
            outcome = self._attempt(exchange, transfer)
            if isinstance(outcome, Answer):
                return outcome
            if pause(exchange.wait_after(outcome)):
                raise outcome

    def solve(self, gathering: Gathering[R], pause: Callable[[float], bool | None] = time.sleep) -> list[R]:
        """The results of one chunk, its requests one after the other."""
        for call in gathering.calls():
            try:
                gathering.take(self.send(call, pause=pause), call)
            except IsolatentError as error:
                gathering.fail(error, call)
        return gathering.results()

    def stream(self, work: Work[R]) -> Generator[list[R], None, None]:
        """The results chunk by chunk, in input order. The first error ends the rest: what is sent is waited for."""
        if work.at_once == 1:
            for chunk in work.chunks():
                yield self.solve(work.gathering(chunk))
            return
        stop = threading.Event()
        pending: deque[Future[list[R]]] = deque()
        threads = ThreadPoolExecutor(work.at_once, "isolatent")
        try:
            for chunk in work.chunks():
                pending.append(threads.submit(self.solve, work.gathering(chunk), stop.wait))
                if len(pending) == work.ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            stop.set()
            threads.shutdown(cancel_futures=True)

    def collect(self, work: Work[R], progress: Progress, pack: Callable[[list[R]], P]) -> list[P]:
        """The packed results of all chunks."""
        packed = []
        with _progress.shown(progress, work.total) as report, closing(self.stream(work)) as chunks:
            for results in chunks:
                packed.append(pack(results))
                report(len(results))
        return packed

    def each(self, work: Work[R]) -> Iterator[tuple[int, R]]:
        """The results one by one with their places."""
        index = 0
        with closing(self.stream(work)) as chunks:
            for results in chunks:
                for result in results:
                    yield index, result
                    index += 1

    def _attempt(self, exchange: Exchange, transfer: Transfer | None) -> Answer | IsolatentError:
        """One attempt: the yes, or what went wrong. The whole answer is read before the deadline."""
        extensions, arguments = exchange.attempts.extensions(), exchange.request()
        if transfer:
            arguments["headers"] |= transfer.headers()
            arguments["content"] = transfer.body(exchange.attempts)
        request = self._http.build_request(**arguments, extensions=extensions)
        try:
            response = self._http.send(request, stream=True, follow_redirects=False)
            try:
                content = _content(response, exchange.attempts, transfer)
            finally:
                response.close()
        except httpx2.RequestError as error:
            return exchange.broken(error)
        return exchange.answered(response.status_code, response.headers, content)


def _content(response: httpx2.Response, attempts: Attempts, transfer: Transfer | None) -> bytes:
    """The body of an answer, empty where `transfer` took it."""
    if transfer is None or not transfer.accept(response.status_code):
        return b"".join(attempts.within(response.iter_bytes()))
    for piece in response.iter_bytes():
        transfer.write(piece)
        transfer.note(piece, attempts)
    return b""


def _leave_open() -> None:
    """A client that was passed in is closed by who made it."""
