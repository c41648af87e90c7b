"""The service's side of the parser processes: starting them, talking to them, ending them.

What comes back is checked as if a file had taken the worker over: lengths, codes and members, and nothing is unpickled.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import subprocess

import numpy as np
from pydantic import BaseModel, ConfigDict

from isolatent_serve import parser, problems
from isolatent_serve.inputs import Array

_FORK_SECONDS = 20.0
"""For a worker to appear; the first one waits for the template's imports."""

_HANDED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONHOME")
# Nothing else of the service's environment, which may hold secrets.

_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",  # each arena would reserve 64 MiB of the address space that is limited
}


class Lost(Exception):  # noqa: N818 - something that happens to a process, not a mistake
    """A worker or the template is gone, or talks nonsense."""


class Header(BaseModel):
    """What a worker says about a file; `code` and what belongs to it when it could not be read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str = ""
    detail: str = ""
    """The reader's own words, if any."""
    log: str = ""
    last: bool
    """Whether the worker has ended."""


class Template:
    """The process that forks workers. It ends when its end of `_control` has no other any more."""

    def __init__(self, command: list[str]) -> None:
        environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        self._control, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C in a terminal is for the service.
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), env=environment | _ONE_THREAD, start_new_session=True
            )
        self._control.setblocking(False)

    async def fork(self) -> Worker:
        """A new worker, as soon as the template has finished its imports. Raises Lost."""
        connection, theirs = socket.socketpair()
        connection.setblocking(False)
        try:
            with theirs:
                socket.send_fds(self._control, [parser.FORK], [theirs.fileno()])
            async with asyncio.timeout(_FORK_SECONDS):
                (pid,) = parser.PID.unpack(await _receive(connection, parser.PID.size))
            return Worker(connection, os.pidfd_open(pid))
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError | EOFError):
                raise Lost(f"the parser template gives no worker ({error!r})") from None
            raise

    def end(self, patience: float = 5) -> None:
        """End the process and wait for it; its workers end with it."""
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self._process.kill()
        self._process.wait()


class Worker:
    """One worker: the connection to it, and a handle that is its alone even when its process id is given away."""

    def __init__(self, connection: socket.socket, handle: int) -> None:
        self._connection = connection
        self._handle = handle

    def is_well(self) -> bool:
        """Whether it is there, and silent, as it should be between two files."""
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    async def parse(self, header: bytes, data: bytes, like: Array) -> tuple[Header, Array | None]:
        """What it makes of one file: an item like those of `like`, flat, or None and the reason. Raises Lost.

        Nothing is believed that an honest worker could not say.
        """
        loop, connection = asyncio.get_running_loop(), self._connection
        expected = like.dtype.itemsize * math.prod(like.shape[1:])
        try:
            await loop.sock_sendall(connection, parser.FRAME.pack(len(header), len(data)) + header)
            await loop.sock_sendall(connection, data)
            header_size, body_size = parser.FRAME.unpack(await _receive(connection, parser.FRAME.size))
            if header_size > parser.HEADER_BYTES or body_size not in (0, expected):
                raise Lost("an answer of an impossible size")
            answer = Header.model_validate_json(bytes(await _receive(connection, header_size)))
            if body_size:
                return answer, np.frombuffer(await _receive(connection, body_size), like.dtype)
        except (OSError, EOFError, ValueError) as error:
            raise Lost(repr(error)) from None
        if answer.code not in problems.OF_INPUTS:
            raise Lost(f"no such code: {answer.code!r}")
        return answer, None

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        os.close(self._handle)
        self._connection.close()


async def _receive(connection: socket.socket, size: int) -> bytearray:
    """Exactly `size` bytes. Raises EOFError when the other side has closed before."""
    data = bytearray(size)
    left, loop = memoryview(data), asyncio.get_running_loop()
    while left:
        received = await loop.sock_recv_into(connection, left)
        if received == 0:
            raise EOFError("connection closed")
        left = left[received:]
    return data
