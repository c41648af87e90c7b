"""Several processes that serve on one port, and the one beside them that starts, replaces and ends them.

They share a listening socket, which outlives any of them: connections that one has not accepted yet go to another. Each
is a fresh interpreter, since neither ONNX Runtime nor threads survive a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import Process

from prometheus_client.multiprocess import mark_process_dead

from isolatent.cli import CommandError
from isolatent_serve.peers import Peers, State
from isolatent_serve.settings import Settings
from isolatent_serve.supervised import DRAIN, JOB_BYTES, RELOAD, STOP, Job

log = logging.getLogger("isolatent_serve.supervisor")

STEADY_SECONDS = 30.0
"""A process that lived for so long is replaced at once."""
FIRST_DELAY, LONGEST_DELAY = 0.25, 30.0
"""Seconds before others are replaced: twice as many each time."""
ATTEMPTS = 5
"""Starts that may fail in a row, while no other process serves, before the command fails."""
SILENCE_SECONDS = 30.0
"""A process that has not been heard of for so long hangs, and is killed."""
STARTING_SECONDS = 300.0
"""The same for one that was never heard of: it loads packages and reads all bundles before."""
STANDSTILL_SECONDS = 5.0
"""Between two looks that are due every second: then this process has stood still."""
ENDING_SECONDS = 10.0
"""Beyond the time for draining; what is left then is killed."""


class Supervisor:
    """The processes of one service, by place: 0 to `settings.workers` - 1."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        cores = max(1, len(os.sched_getaffinity(0)) // settings.workers)
        shares = {"threads": settings.threads or cores, "parsers": settings.parsers or cores}
        self._settings = settings.model_copy(update=shares)
        self._listener = listener
        self._handle = Peers.create_handle()
        self._peers = Peers(settings.workers, 0, self._handle)
        self._members: dict[int, _Member] = {}
        self._ending = asyncio.Event()
        self._served = False
        self._reason = ""

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises CommandError when no process can."""
        with tempfile.TemporaryDirectory(prefix="isolatent-metrics-") as metrics:
            self._metrics = metrics
            asyncio.run(self._run())
        if self._reason:
            raise CommandError(self._reason)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._tell, RELOAD)
        watching = asyncio.create_task(self._watch())
        async with asyncio.TaskGroup() as group:
            for place in range(self._settings.workers):
                group.create_task(self._keep(place))
        watching.cancel()

    def _end(self) -> None:
        """Let all processes finish what they accepted, and end; the second time, end them."""
        loop = asyncio.get_running_loop()
        if self._ending.is_set():
            self._tell(STOP)
            loop.call_later(ENDING_SECONDS, self._kill)
            return
        self._ending.set()
        self._peers.draining = True  # all see it at once
        self._tell(DRAIN)
        self._listener.close()
        loop.call_later(self._settings.patience + ENDING_SECONDS, self._kill)

    async def _keep(self, place: int) -> None:
        """Keep a process at `place` until the service ends."""
        failures = 0
        while not self._ending.is_set():
            began = time.monotonic()
            state, words = await self._run_member(place)
            if self._ending.is_set():
                return
            steady = time.monotonic() - began > STEADY_SECONDS
            failures = 0 if steady else failures + 1
            if state is State.UNREADY and not steady and self._is_hopeless(failures, words):
                self._reason = self._reason or words or _AGAIN_AND_AGAIN
                self._end()
                return
            if failures > 1:
                with contextlib.suppress(TimeoutError):
                    delay = min(FIRST_DELAY * 2 ** (failures - 2), LONGEST_DELAY)
                    await asyncio.wait_for(self._ending.wait(), delay)

    async def _run_member(self, place: int) -> tuple[State, str]:
        """One process from its start to its end: how far it was, and what it said about that."""
        peer = self._peers.at(place)
        peer.state = State.UNREADY
        job = Job(
            settings=self._settings,
            place=place,
            supervisor=os.getpid(),
            listener=self._listener.fileno(),
            peers=self._handle,
        )
        try:
            member = await _Member.start(job, os.environ | {"PROMETHEUS_MULTIPROC_DIR": self._metrics})
        except OSError as error:  # as many processes or open files as there may be, say: the others go on
            log.error("process %d cannot be started: %s", place + 1, error)
            return State.UNREADY, f"a process cannot be started: {error}; raise the limit, or give fewer --workers"
        self._members[place] = member
        if self._ending.is_set():
            member.tell(DRAIN)
        words, code = await member.ended()
        del self._members[place]
        mark_process_dead(member.pid, self._metrics)  # type: ignore[no-untyped-call]
        state, peer.connections = peer.state, 0
        peer.state = State.GONE
        if not self._ending.is_set():
            log.error("process %d ended with %d while %s: %s", place + 1, code, state.name.lower(), words or "no word")
        return state, words

    def _is_hopeless(self, failures: int, words: str) -> bool:
        """Whether the next start would fail as well."""
        if any(self._peers.at(place).state is State.READY for place in range(self._settings.workers)):
            return False
        return failures >= ATTEMPTS or (bool(words) and not self._served)

    async def _watch(self) -> None:
        """Kill processes that hang."""
        watch = Watch(time.monotonic())
        while True:
            await asyncio.sleep(1)
            awake = watch.awake(time.monotonic())
            self._served = self._served or self._peers.all(State.READY)
            for place, member in self._members.items():
                silence = self._peers.at(place).silence
                patience = SILENCE_SECONDS if member.age > silence + 1 else STARTING_SECONDS
                if min(silence, awake) > patience:
                    log.error("process %d has not been heard of for %g s: killing it", place + 1, patience)
                    member.kill()

    def _tell(self, word: bytes) -> None:
        for member in self._members.values():
            member.tell(word)

    def _kill(self) -> None:
        for member in self._members.values():
            member.kill()


class Watch:
    """Knows for how long this process has been awake: one that stood still cannot blame others for their silence.

    They stood still with it, when the machine was suspended or the container frozen, and need a moment to be heard of.
    """

    def __init__(self, now: float) -> None:
        self._since = self._last = now

    def awake(self, now: float) -> float:
        """Seconds since the last long time without this being asked. To be called every second."""
        if now - self._last > STANDSTILL_SECONDS:
            self._since = now
        self._last = now
        return now - self._since


class _Member:
    """One process, and the socket to it."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        self.pid = process.pid
        self._began = time.monotonic()
        self._process = process
        self._control = control

    @classmethod
    async def start(cls, job: Job, environment: dict[str, str]) -> _Member:
        """Start it and tell it what to do. Raises OSError."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        warnings = [f"-W{option}" for option in sys.warnoptions]
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", *warnings, "-m", "isolatent_serve.supervised"),
                    stdin=theirs.fileno(),
                    pass_fds=(job.listener, job.peers),
                    env=environment,
                )
            except OSError:
                control.close()
                raise
        member = cls(process, control)
        member.tell(job.model_dump_json().encode())  # it may have ended already
        return member

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._began

    async def ended(self) -> tuple[str, int]:
        """Its last words, if any, and its exit code."""
        words = b""
        with contextlib.suppress(OSError):
            words = await asyncio.get_running_loop().sock_recv(self._control, JOB_BYTES)
        code = await self._process.wait()
        self._control.close()
        return words.decode(errors="replace"), code

    def tell(self, word: bytes) -> None:
        """Send one of the words that supervised.py knows."""
        with contextlib.suppress(OSError):
            self._control.send(word)

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


_AGAIN_AND_AGAIN = (
    "the processes of the service end again and again before they are ready; the log says why, "
    "and --workers 1 shows it without a supervisor"
)
