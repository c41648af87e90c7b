"""The processes that open untrusted files: a template that has everything imported, and the workers it forks.

parsing.py starts the template by this file's path, and only the template imports what the readers need. A worker is a
fork of it: ready within milliseconds, and nothing it suffers reaches any other process. Run by path, because importing
the package would load the whole service into each of them.

Between service and worker go frames: two lengths, a JSON header, raw bytes. Nothing that is received is ever unpickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from isolatent_export.inputs import InputError, Limits, decode_item
from isolatent_export.manifest import InputSpec, input_spec

FRAME = struct.Struct("<II")
"""Lengths in bytes of the JSON header and of the raw bytes that follow it."""
PID = struct.Struct("<i")
"""The first thing a worker says: its process id."""
FORK = b"\x01"
"""Asks the template for a worker on the socket that comes with it."""

HEADER_BYTES = 4096
"""Longest JSON header that a worker may send."""
DETAIL_CHARACTERS = 400

FILES_PER_WORKER = 2000
"""A worker ends after this many files: what readers leak stays small."""

POINT_CLOUD_READERS = ("trimesh", "laspy", "lazrs", "lzf")
"""What the extra `clouds` installs."""

_OPEN_FILES = 32
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def request(spec: InputSpec, limits: Limits) -> bytes:
    """The header of a file to be parsed."""
    return json.dumps({"spec": spec.model_dump(mode="json"), "limits": asdict(limits)}).encode()


def main(megabytes: int, modalities: list[str]) -> None:
    """Be the template: import, then fork a worker for each socket that arrives on stdin, until it is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the service, which closes stdin when it has finished
        signal.signal(number, signal.SIG_IGN)
    import_readers(modalities)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers that ended leave no zombies
    _silence(sys.stdout.fileno(), sys.stderr.fileno())
    gc.collect()
    gc.freeze()  # the collector would otherwise write to, and so copy, every page that is shared
    template = os.getpid()
    control = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    _silence(sys.stdin.fileno())
    while True:
        asked, received, _, _ = socket.recv_fds(control, len(FORK), 1)
        if not asked:
            return
        if os.fork() == 0:
            control.close()
            _be_worker(socket.socket(fileno=received[0]), template, megabytes)
        os.close(received[0])


def import_readers(modalities: list[str]) -> None:
    """Import what the first file would otherwise wait for, and pay for from its share of memory."""
    Image.init()
    if "point_cloud" in modalities:
        for name in POINT_CLOUD_READERS:
            importlib.import_module(name)


def _silence(*descriptors: int) -> None:
    # libtiff and others print what they think of a file.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def _be_worker(connection: socket.socket, template: int, megabytes: int) -> None:
    """Parse files until the service closes the connection or the worker is worn out. Does not return."""
    try:
        _confine(template, megabytes)
        with connection, connection.makefile("rb") as requests:
            connection.sendall(PID.pack(os.getpid()))
            _serve(requests, connection, megabytes)
    finally:
        os._exit(0)


def _confine(template: int, megabytes: int) -> None:
    """Give up what parsing does not need, before the first byte from outside."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != template:  # it died before the line above
        os._exit(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, the kernel takes a worker first
    for kind, limit in (
        (resource.RLIMIT_AS, _address_space() + megabytes * 2**20),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(kind, (limit, limit))


def _serve(requests: BinaryIO, connection: socket.socket, megabytes: int) -> None:
    size_at_start = _address_space()
    for count in range(1, FILES_PER_WORKER + 1):
        lengths = requests.read(FRAME.size)
        if len(lengths) < FRAME.size:
            return
        header, data = map(requests.read, FRAME.unpack(lengths))
        reply, body = _parse(header, data)
        del data
        # Memory that readers leave behind is taken from the next file's share.
        worn = count == FILES_PER_WORKER or _address_space() - size_at_start > megabytes * 2**20 // 8
        reply["last"] = worn = worn or reply.get("code") == "parser_memory"
        answer = json.dumps(reply).encode()
        connection.sendall(FRAME.pack(len(answer), len(body)) + answer + body)
        if worn:
            return


def _parse(header: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
    """A file as the header of the answer and the bytes of the array."""
    spec, limits = _read_request(header)
    try:
        return {}, np.ascontiguousarray(decode_item(data, spec, limits)).tobytes()
    except Exception as error:
        if is_shortage(error):
            return {"code": "parser_memory"}, b""
        if isinstance(error, InputError):
            return {"code": error.code, "detail": error.detail[:DETAIL_CHARACTERS]}, b""
        # A reader's mistake. Where it was made helps to mend it; the file's content is no part of it.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name} line {place.lineno}"
        return {"code": "parser_crashed", "log": f"{type(error).__name__} in {where}"}, b""


@functools.lru_cache(16)
def _read_request(header: bytes) -> tuple[InputSpec, Limits]:
    facts = json.loads(header)
    return input_spec(facts["spec"]), Limits(**facts["limits"])


def is_shortage(error: BaseException | None) -> bool:
    """Whether the memory limit is behind an error, which readers may have taken for a fault of the file."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _address_space() -> int:
    """Bytes of address space in use by this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
