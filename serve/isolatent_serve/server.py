"""One process that serves: the app behind uvicorn, from the first probe to the end of the draining."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from isolatent.cli import CommandError
from isolatent_export import Bundle
from isolatent_serve import logs
from isolatent_serve.accepting import Acceptor
from isolatent_serve.app import create_app
from isolatent_serve.connections import Connection, Connections
from isolatent_serve.lane import Lane
from isolatent_serve.listening import refuse_newcomers
from isolatent_serve.peers import Peers, State
from isolatent_serve.service import Service
from isolatent_serve.settings import Settings

log = logging.getLogger("isolatent_serve")

CLOSING_SECONDS = 0.2
"""From when no connection can begin any more to the end: whoever has connected is told that the service is ending."""
STOPPING_SECONDS = 1.0
"""What requests get once the service is told not to wait for them."""
ENDING_SECONDS = 5.0
"""For models, threads and processes to end."""


def open_bundles(paths: Sequence[Path]) -> list[Bundle]:
    """The bundles, with all hashes checked. Raises BundleError."""
    bundles = [Bundle.open(path) for path in paths]
    for bundle in bundles:
        bundle.require_intact()
    return bundles


def start_logging(settings: Settings) -> None:
    """Write the log of this process to stderr."""
    logs.configure(settings.log_format, settings.log_level)


class Server(uvicorn.Server):
    """uvicorn that drains first: it goes on listening, for probes, until the accepted requests are done.

    With peers, they all stop listening together; one that drains alone leaves that to the others at once.
    """

    def __init__(self, settings: Settings, bundles: Sequence[Bundle], peers: Peers | None = None) -> None:
        """Raises BundleError for bundles that cannot be served together."""
        app = create_app(settings, bundles, on_failure=self._refuse)
        super().__init__(_uvicorn_config(app, settings))
        self._service: Service = app.state.service
        self._service.peers = self._peers = peers or Peers()
        self._lane: Lane | None = app.state.lane
        self._connections = Connections(settings, self._peers, self._service.metrics.rejected, self._lane)
        self.server_state = self._connections
        self._patience = settings.patience
        self._end: float | None = None
        self._closed: float | None = None
        self._failure: Exception | None = None
        self._failing: set[str] = set()

    def serve_on(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT; in a thread, until `should_exit` is set.

        Raises CommandError for a model that must not be served.
        """
        self._listener = listener
        if threading.current_thread() is threading.main_thread():
            self._handle_signals()
            _spare_the_collector()
        self.run(sockets=[])
        if self._failure:
            raise CommandError(str(self._failure))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        await super().startup(sockets)
        protocol = partial(Connection, self.config, self._connections, self.lifespan.state, asyncio.get_running_loop())
        self._acceptor = Acceptor(self._listener, self._connections, self._peers, protocol)
        self.servers = [self._acceptor]  # type: ignore[list-item]  # it has what uvicorn asks of it

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to drain; a second signal ends that, but only the supervisor's word does where there is one."""
        if self._end is None:
            self.drain()
        elif self._peers.count == 1:
            self.stop()

    def reload(self) -> None:
        """Read again what may change while the service runs."""
        self._service.reload()

    def drain(self) -> None:
        """Accept no new work, finish what is accepted, and end. Safe in a signal handler; once is enough."""
        if self._end is None:
            self._service.drain()
            self._end = time.monotonic() + self._patience  # an accepted request may take this long
            asyncio.get_running_loop().call_soon_threadsafe(_end_at_last, self._patience + ENDING_SECONDS)

    def stop(self) -> None:
        """End within seconds, whatever is still to be done. Safe in a signal handler."""
        self._end = 0.0
        self.should_exit = True
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(_end_at_last, ENDING_SECONDS)
        loop.call_soon_threadsafe(loop.call_later, STOPPING_SECONDS, self._connections.abort)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop listening; uvicorn asks ten times a second."""
        self._attempt(self._tell_peers)
        self._attempt(self._service.tell_metrics)
        if self._lane:
            self._attempt(self._lane.inspect)
        if counter % 5 == 0:
            self._attempt(self._connections.inspect)
        over = await super().on_tick(counter) or (self._end is not None and self._is_over(self._end))
        if over and self._end is not None:  # what uvicorn waits for then: answers that clients have not taken yet
            self.config.timeout_graceful_shutdown = max(1, int(self._end - time.monotonic()))
        return over

    def _attempt(self, chore: Callable[[], None]) -> None:
        """Do it; a defect there must not end a process that serves, and is reported when it begins."""
        name = chore.__qualname__
        try:
            chore()
        except Exception:
            if name not in self._failing:
                log.exception("the service's housekeeping failed: %s", name)
            self._failing.add(name)
        else:
            self._failing.discard(name)

    def _is_over(self, end: float) -> bool:
        now = time.monotonic()
        if now > end:
            return True
        together = self._peers.draining or self._peers.count == 1
        if not together:
            self._acceptor.close()
        if not (self._peers.all(State.GONE) if together else self._service.drained):
            return False
        if self._closed is None:
            self._closed = now
            if together:
                refuse_newcomers(self._listener)
        return now > self._closed + CLOSING_SECONDS

    def _tell_peers(self) -> None:
        if self._service.drained:
            self._peers.state = State.GONE
        else:
            self._peers.state = State.READY if self._service.ready else State.UNREADY

    def _handle_signals(self) -> None:
        # uvicorn raises the signal again once it has shut down: this makes that, and the time before it, harmless.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "should_exit", True))
        signal.signal(signal.SIGHUP, lambda *_: self.reload())

    def _refuse(self, error: Exception) -> None:
        self._failure = self._failure or error
        self.should_exit = True


def _spare_the_collector() -> None:
    """Let Python's collector of cycles leave alone what stays: to look at it stops all requests for a while."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # requests leave next to no cycles behind


def _end_at_last(seconds: float) -> None:
    """End this process after so many seconds, even when a thread of its hangs."""
    timer = threading.Timer(seconds, _end_now)
    timer.daemon = True
    timer.start()


def _end_now() -> None:
    log.error("something still runs: ending all the same")
    os._exit(0)


def _uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,  # access.py logs requests, with their ids
        server_header=False,
        proxy_headers=False,
        http=Connection,
        ws="none",
        timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
        timeout_graceful_shutdown=5,  # after a failure; on_tick sets what holds after draining
    )
