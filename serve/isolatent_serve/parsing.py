"""Untrusted files are parsed in processes of their own, with limits of time and memory.

A reader that crashes, hangs or eats memory costs the one file it was given, and its worker: the template process (see
parser.py) forks another. This keeps faults in; it is no sandbox, the workers run as the service's user.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from isolatent_export.inputs import InputError, Limits
from isolatent_export.manifest import InputSpec
from isolatent_serve import inputs, parser
from isolatent_serve.inputs import Array
from isolatent_serve.problems import Problem
from isolatent_serve.workers import Lost, Template, Worker

log = logging.getLogger("isolatent_serve.parsing")


class Parsers:
    """At most `count` workers at once (0: one per core), each with `seconds` for a file and `megabytes` of memory
    beyond what it starts with. Workers are forked when one is needed and stay for many files.

    Close it when the service stops.
    """

    def __init__(self, count: int, seconds: float, megabytes: int, modalities: Sequence[str]) -> None:
        self._count = count or len(os.sched_getaffinity(0))
        self._seconds = seconds
        self._megabytes = megabytes
        self._command = [sys.executable, "-P", parser.__file__, str(megabytes), *modalities]
        self._turn = asyncio.Semaphore(self._count)  # first come, first served
        self._idle: list[Worker] = []
        self._template: Template | None = None
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether `start` has finished."""
        return self._ready

    def launch(self) -> None:
        """Begin to start: the template imports the readers while the caller does something else."""
        self._template = Template(self._command)

    async def start(self) -> None:
        """Wait until a worker is there. Raises Lost when none can be had."""
        self._idle.append(await self._fork())
        self._ready = True

    async def parse(self, files: Sequence[bytes], spec: InputSpec, limits: Limits) -> list[Array | InputError]:
        """Each file as the array of shape `spec.shape`, or what is wrong with it.

        Takes turns with other requests, file by file. A request that is cancelled frees its workers at once.
        Raises Problem `not_ready` when no worker can be had.
        """
        header = parser.request(spec, limits)
        outcomes: dict[int, Array | InputError] = {}
        waiting = iter(enumerate(files))

        async def one_by_one() -> None:
            for place, data in waiting:
                async with self._turn:
                    outcomes[place] = await self._parse(header, data, spec)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in files[: self._count]:
                    group.create_task(one_by_one())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [outcomes[place] for place in range(len(files))]

    async def close(self) -> None:
        """End all processes."""
        template, self._template = self._template, None
        while self._idle:
            self._idle.pop().end()
        if template:
            await asyncio.to_thread(template.end)

    async def _parse(self, header: bytes, data: bytes, spec: InputSpec) -> Array | InputError:
        if 2 * len(data) > self._megabytes * 2**20:  # there would be no room to make anything of it
            return self._failure("parser_memory", spec)
        worker = await self._take()
        answer = None
        try:
            async with asyncio.timeout(self._seconds):
                answer = await worker.parse(header, data, inputs.stacked([], spec))
        except TimeoutError:
            return self._failure("parser_timeout", spec)
        except Lost:
            return self._failure("parser_crashed", spec)
        finally:  # a cancelled request comes here too
            if answer and not answer[0].last and self._template:
                self._idle.append(worker)
            else:
                worker.end()
        said, array = answer
        if said.log:
            log.warning("a reader failed: %r", said.log)
        if array is not None:
            return array.reshape(spec.shape)
        return InputError(said.code, said.detail) if said.detail else self._failure(said.code, spec)

    async def _take(self) -> Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_well():
                return worker
            worker.end()
        try:
            return await self._fork()
        except Lost as error:
            raise Problem("not_ready", str(error), headers={"Retry-After": "1"}) from None

    async def _fork(self) -> Worker:
        for left in (1, 0):
            template = self._template
            if template is None:
                break
            try:
                return await template.fork()
            except Lost as error:
                log.warning("%s", error)
                if left and self._template is template:
                    template.end(patience=0)
                    self.launch()
        raise Lost("no process that reads files can be started; try again, the log says why")

    def _failure(self, code: str, spec: InputSpec) -> InputError:
        return failure(code, spec.modality, self._seconds, self._megabytes)


def failure(code: str, modality: str, seconds: float, megabytes: int) -> InputError:
    """What to say of a file whose reader crashed, or took more than so much processor time or MiB."""
    better = {"image": "a PNG", "point_cloud": "a binary PLY"}[modality]
    smaller = f"send a smaller file, or {better}"
    match code:
        case "parser_timeout":
            return InputError(code, f"not read within {seconds:g} s; {smaller}")
        case "parser_memory":
            return InputError(code, f"reading it takes more than {megabytes} MiB; {smaller}")
    return InputError("parser_crashed", f"the reader failed on this file; save it again, best as {better}")
