"""A server that does nothing, as fast as Python can: what a load generator is proved against.

    python benchmarks/null_server.py PORT [--capacity N] [--stall SECONDS]

Beyond `capacity` requests per second it answers 429 with Retry-After, as a full service does; at its hundredth
request it does nothing for `stall` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import cast

import uvloop

_ACCEPTED = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_REJECTED = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 4\r\n\r\nfull"


class Room:
    """Lets so many requests per second pass, and a hundredth of that at once."""

    def __init__(self, capacity: float, stall: float) -> None:
        self._stall = stall
        self._count = 0
        self._capacity = capacity
        self._tokens = 0.0
        self._filled = time.perf_counter()

    def take(self) -> bool:
        """Whether one more may pass."""
        self._count += 1
        if self._count == 100:
            time.sleep(self._stall)
        now = time.perf_counter()
        self._tokens = min(self._capacity / 100, self._tokens + (now - self._filled) * self._capacity)
        self._filled = now
        passes = self._tokens >= 1
        self._tokens -= passes
        return passes


class Null(asyncio.Protocol):
    """Answers each request when its body is complete."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of one request: clients do not pipeline."""
        if self.missing == 0:
            head, _, body = data.partition(b"\r\n\r\n")
            self.missing = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) - len(body)
        else:
            self.missing -= len(data)
        if self.missing == 0:
            self.transport.write(_ACCEPTED if self.room.take() else _REJECTED)


async def serve(port: int, room: Room) -> None:
    """Until it is killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Null(room), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int, help="0 takes a free one, which is printed")
    parser.add_argument("--capacity", type=float, default=1e9, metavar="N", help="requests per second")
    parser.add_argument("--stall", type=float, default=0.0, metavar="SECONDS")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(args.port, Room(args.capacity, args.stall)))


if __name__ == "__main__":
    main()
