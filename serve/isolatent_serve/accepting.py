"""Accepting connections from a socket that several processes share, so that each gets its part.

Left to themselves, whichever process wakes first takes all that wait. Here a process that has more connections than
another one leaves a new one alone for a moment, which is enough for the other to take it; and one that is not ready
yet leaves all to those that are.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from isolatent_serve.connections import Connections
from isolatent_serve.peers import Peers

log = logging.getLogger("isolatent_serve")

PATIENCE = 0.001
"""Seconds that a new connection waits at a time for a process that has fewer."""
TRIES = 5
"""How many times; a process that is busy for longer misses it."""
UNREADY_PATIENCE = 0.05
"""Seconds between two looks of a process that is not ready whether another one still is."""
SILENCE = 3.0
"""Seconds after which a ready process that nothing is heard of counts for nothing here."""
SLACK = 8
"""A process may have one connection more than another, and one more for each eight of the other's."""

_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """What uvicorn takes for a server of asyncio: it gives accepted connections to protocols until it is closed."""

    def __init__(
        self, listener: socket.socket, connections: Connections, peers: Peers, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._connections = connections
        self._peers = peers
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._left_alone = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop.add_reader(listener, self._offered)

    def close(self) -> None:
        """Accept nothing more; what is in the kernel's queue is left to the other processes."""
        if self._timer:
            self._timer.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Wait for the last protocols to get their connections."""
        await asyncio.gather(*self._tasks)

    def _offered(self) -> None:
        if self._peers.leaves_to_others(SILENCE):
            self._pause(UNREADY_PATIENCE)
            return
        fewest = self._peers.fewest
        self._left_alone += 1
        if self._left_alone <= TRIES and self._peers.connections > fewest + 1 + fewest // SLACK:
            self._pause(PATIENCE)
        else:
            self._left_alone = 0
            self._take()

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener, self._offered)

    def _take(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _NO_MORE_FILES:
                log.error("no connection can be accepted: %s", error)
                self._pause(1)
            return  # else another process has taken it, or the client has left
        connection.setblocking(False)
        self._connections.arriving += 1
        self._connections.count()
        task = self._loop.create_task(self._hand_over(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_over(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # the client has left
            connection.close()
        finally:
            self._connections.arriving -= 1
