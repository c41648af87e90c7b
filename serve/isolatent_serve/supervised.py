"""One of several processes that serve: started by supervisor.py, which hands it a socket on stdin.

Messages over that socket: the job first, then one of the words DRAIN, STOP and RELOAD at a time. The other way goes at
most one: why this process cannot serve.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys

from pydantic import BaseModel

from isolatent.cli import CommandError
from isolatent_export import Bundle, BundleError
from isolatent_serve import server
from isolatent_serve.keys import KeysError
from isolatent_serve.peers import Peers
from isolatent_serve.settings import Settings

DRAIN, STOP, RELOAD = b"drain", b"stop", b"reload"

JOB_BYTES = 2**17
"""Longest message."""

_PR_SET_PDEATHSIG = 1


class Job(BaseModel):
    """What a process is to do: `listener` and `peers` are descriptors that it inherits."""

    settings: Settings
    place: int
    supervisor: int
    listener: int
    peers: int


def main() -> int:
    """Serve until the supervisor, or a signal, says otherwise. Returns the exit code."""
    control = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    job = Job.model_validate_json(control.recv(JOB_BYTES))
    _end_with(job.supervisor)
    server.start_logging(job.settings)
    peers = Peers(job.settings.workers, job.place, job.peers)
    try:
        bundles = server.open_bundles(job.settings.bundles)
        one = _Server(job.settings, bundles, peers, control)
        if not peers.draining:
            one.serve_on(socket.socket(fileno=job.listener))
    except (BundleError, CommandError, KeysError) as error:
        control.send(str(error).encode()[:JOB_BYTES])
        return 1
    return 0


class _Server(server.Server):
    """Listens to the supervisor as well."""

    def __init__(self, settings: Settings, bundles: list[Bundle], peers: Peers, control: socket.socket) -> None:
        super().__init__(settings, bundles, peers)
        self._control = control

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen to both, clients and the supervisor."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._control, self._obey)

    def _obey(self) -> None:
        match self._control.recv(JOB_BYTES):
            case b"":  # the supervisor is gone
                os._exit(1)
            case word if word == DRAIN:
                self.drain()
            case word if word == STOP:
                self.stop()
            case word if word == RELOAD:
                self.reload()


def _end_with(supervisor: int) -> None:
    """Be killed when the supervisor ends, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it has ended before the line above
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
