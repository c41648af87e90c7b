"""Open-loop load: requests leave when they are due, whether or not earlier ones have been answered.

    python benchmarks/open_loop.py HOST PORT FOLDER     sends FOLDER/0, FOLDER/1, ... when FOLDER/due.npy says

Latency counts from the time a request was due, so that a stalled server cannot hide behind a client that waits for it
(coordinated omission). One thread, one epoll, sockets kept alive; a new one is opened whenever none is idle.
"""

from __future__ import annotations

import argparse
import gc
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BROKEN = -1
"""Status of a request whose connection was refused, or closed before its answer was complete."""
UNANSWERED = 0
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Offered:
    """What became of n requests. Times in seconds since the start; NaN where it never happened."""

    due: NDArray[np.float64]
    picked: NDArray[np.float64]
    """When the generator came to it: later than `due` is the generator's fault."""
    sent: NDArray[np.float64]
    """When it went to a connection: later than `picked` means that all connections were taken."""
    done: NDArray[np.float64]
    status: NDArray[np.int16]
    retry_after: NDArray[np.bool_]
    connections: int
    """Most that were open at once."""

    @property
    def latency(self) -> NDArray[np.float64]:
        """From when it was due to the last byte of its answer."""
        return self.done - self.due

    @property
    def lateness(self) -> NDArray[np.float64]:
        """How late the generator was."""
        return self.picked - self.due

    def where(self, chosen: NDArray[np.bool_]) -> Offered:
        """Some of the requests."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self)}
        return Offered(**{name: value[chosen] if np.ndim(value) else value for name, value in arrays.items()})

    def save(self, path: Path) -> None:
        """Write everything as npz."""
        np.savez(path, **{each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Offered:
        """What `save` wrote."""
        with np.load(path) as arrays:
            return cls(**{name: value if value.ndim else int(value) for name, value in arrays.items()})


def arrivals(rate: float, seconds: float, *, poisson: bool, seed: int = 0) -> NDArray[np.float64]:
    """When requests are due: at random as independent users' are, or evenly spaced."""
    count = max(1, round(rate * seconds))
    if not poisson:
        return np.arange(count) / rate
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def request(path: str, host: str, body: bytes, media_type: str, accept: str) -> bytes:
    """One POST, ready to be sent."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media_type}\r\nAccept: {accept}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def offer(
    address: tuple[str, int],
    requests: Sequence[bytes],
    due: NDArray[np.float64],
    *,
    connections: int = 4096,
    patience: float = 40.0,
) -> Offered:
    """Send `requests` in turn at the times `due` over at most so many connections; wait `patience` seconds more."""
    gc.collect()
    gc.disable()  # a collection would make requests late
    try:
        return _Generator(address, requests, due, connections).run(patience)
    finally:
        gc.enable()


class _Connection:
    __slots__ = ("buffer", "closes", "events", "index", "left", "needed", "reused", "socket")

    def __init__(self, own: socket.socket) -> None:
        self.socket = own
        self.index = -1
        """The request on its way, -1 for none."""
        self.left = memoryview(b"")
        """What could not be sent yet."""
        self.events: int = select.EPOLLIN
        self.buffer = b""
        self.needed = 0
        """Bytes of the whole answer, once its head is there."""
        self.reused = False
        self.closes = False


class _Generator:
    def __init__(
        self, address: tuple[str, int], requests: Sequence[bytes], due: NDArray[np.float64], connections: int
    ) -> None:
        count = len(due)
        self.address = address
        self.requests = requests
        self.due = due
        self.connections = connections
        self.epoll = select.epoll()
        self.open: dict[int, _Connection] = {}
        self.idle: list[_Connection] = []
        self.waiting: deque[int] = deque()
        self.most = 0
        self.answered = 0
        self.picked, self.sent, self.done = (np.full(count, np.nan) for _ in range(3))
        self.status = np.full(count, UNANSWERED, np.int16)
        self.retry_after = np.zeros(count, bool)

    def run(self, patience: float) -> Offered:
        times: list[float] = self.due.tolist()
        count, following, clock = len(times), 0, time.perf_counter
        self.start = start = clock() + 0.01
        end = start + times[-1] + patience
        while self.answered < count:
            now = clock() - start
            while following < count and times[following] <= now:
                self.picked[following] = now
                self._dispatch(following)
                following += 1
                now = clock() - start
            if now + start > end:
                break
            wait = times[following] - now if following < count else 0.1
            for descriptor, event in self.epoll.poll(max(0.0, min(wait, 0.1)), 256):
                connection = self.open.get(descriptor)
                if connection is not None:
                    self._ready(connection, event)
        for each in self.open.values():
            each.socket.close()
        self.epoll.close()
        return Offered(self.due, self.picked, self.sent, self.done, self.status, self.retry_after, self.most)

    # ---- one request ----

    def _dispatch(self, index: int) -> None:
        if self.idle:
            connection = self.idle.pop()
        elif len(self.open) < self.connections:
            connection = self._connect()
        else:
            self.waiting.append(index)
            return
        self.sent[index] = time.perf_counter() - self.start
        self._assign(connection, index)

    def _assign(self, connection: _Connection, index: int) -> None:
        connection.index = index
        connection.left = memoryview(self.requests[index % len(self.requests)])
        self._send(connection)

    def _connect(self) -> _Connection:
        own = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        own.setblocking(False)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own.connect_ex(self.address)  # what becomes of it, the events tell
        connection = _Connection(own)
        self.open[own.fileno()] = connection
        self.most = max(self.most, len(self.open))
        self.epoll.register(own, connection.events)
        return connection

    def _send(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.send(connection.left)
        except BlockingIOError:  # no room, or still connecting
            sent = 0
        except OSError:  # the other side has closed: reading will say so
            sent = len(connection.left)
        connection.left = connection.left[sent:]
        events = select.EPOLLIN | select.EPOLLOUT if connection.left else select.EPOLLIN
        if events != connection.events:
            connection.events = events
            self.epoll.modify(connection.socket, events)

    def _ready(self, connection: _Connection, event: int) -> None:
        if event & select.EPOLLOUT:
            self._send(connection)
        if event & ~select.EPOLLOUT:
            self._receive(connection)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(connection)
            return
        connection.buffer = connection.buffer + data if connection.buffer else data
        if connection.needed == 0:
            self._read_head(connection)
        if connection.needed and len(connection.buffer) >= connection.needed:
            self._finished(connection)

    def _read_head(self, connection: _Connection) -> None:
        length = connection.buffer.find(_HEAD_END)
        if length < 0:
            return
        head = connection.buffer[: length + 2].lower()
        value = head.partition(b"\r\ncontent-length:")[2]
        connection.needed = length + len(_HEAD_END) + int(value[: value.find(b"\r\n")] or 0)
        connection.closes = b"\r\nconnection: close" in head
        self.status[connection.index] = int(head[9:12])
        self.retry_after[connection.index] = b"\r\nretry-after:" in head

    # ---- what comes after ----

    def _finished(self, connection: _Connection) -> None:
        self._over(connection.index)
        if connection.closes:
            self._close(connection)
        else:
            connection.index, connection.buffer, connection.needed, connection.reused = -1, b"", 0, True
            self.idle.append(connection)
        self._next()

    def _lost(self, connection: _Connection) -> None:
        """The other side has closed. A request that met the end of a kept-alive connection goes to a new one, once."""
        self._close(connection)
        if connection.index < 0:
            self.idle.remove(connection)
        elif connection.reused and not connection.buffer:
            self._assign(self._connect(), connection.index)
        else:
            self.status[connection.index] = BROKEN
            self._over(connection.index)
            self._next()

    def _over(self, index: int) -> None:
        self.done[index] = time.perf_counter() - self.start
        self.answered += 1

    def _next(self) -> None:
        if self.waiting:
            self._dispatch(self.waiting.popleft())

    def _close(self, connection: _Connection) -> None:
        del self.open[connection.socket.fileno()]
        connection.socket.close()


def main() -> None:
    """Send what a folder holds and write FOLDER/offered.npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--connections", type=int, default=4096)
    args = parser.parse_args()
    requests = [path.read_bytes() for path in sorted(args.folder.glob("[0-9]*"), key=lambda path: int(path.name))]
    due = np.load(args.folder / "due.npy")
    offer((args.host, args.port), requests, due, connections=args.connections).save(args.folder / "offered.npz")


if __name__ == "__main__":
    main()
