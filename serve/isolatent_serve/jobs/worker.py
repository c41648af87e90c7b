"""One process of the local engine: it computes the shards whose numbers it is told, and says when each is done.

local.py starts it. Over stdin comes one line of JSON that says where the job is, then one for each shard; over what was
stdout goes one for each that is done. Where it is in a shard stands on a board in memory that both share, so that it is
known of a process that is gone, too.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import signal
import struct
import sys
from typing import Any, NamedTuple

from isolatent_serve.jobs.folder import JobFolder
from isolatent_serve.jobs.shard import ELSEWHERE, Encoder, run_shard, try_one
from isolatent_serve.jobs.spec import JobError

_SIGN = struct.Struct("<qq")

BOARD_BYTES = _SIGN.size

_PR_SET_PDEATHSIG = 1


class Sign(NamedTuple):
    """What stands on a board: the place in its shard of the input in hand, and how many signs came before."""

    place: int
    number: int


class Board:
    """A few bytes that two processes share: one writes, the other reads."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, BOARD_BYTES)
        self._number = 0

    def beat(self, place: int) -> None:
        """Write down where the shard is. Called for each input: no system call."""
        self._number += 1
        _SIGN.pack_into(self._memory, 0, place, self._number)

    def read(self) -> Sign:
        """What was written last."""
        return Sign._make(_SIGN.unpack_from(self._memory))

    def close(self) -> None:
        """Let go of it."""
        self._memory.close()


def end_with(parent: int, number: signal.Signals) -> None:
    """Get this signal when the process `parent`, which started this one, ends, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it has ended before the line above
        os.kill(os.getpid(), number)


def main() -> None:
    """Be a worker until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gives the work
    answers = os.dup(sys.stdout.fileno())
    _silence()
    start = json.loads(sys.stdin.readline())
    end_with(start["parent"], signal.SIGKILL)
    board = Board(start["board"])
    board.beat(ELSEWHERE)
    try:
        folder = JobFolder(start["folder"])
        encoder = Encoder(folder.spec)
        gc.collect()
        gc.freeze()  # what is there stays: the collector would look at it again and again
        for line in sys.stdin:
            _say(answers, _obey(json.loads(line), folder, encoder, board))
    except JobError as error:
        _say(answers, {"error": str(error)})
    except OSError as error:  # of writing: what is wrong with an input is none of these
        _say(answers, {"error": f"the results cannot be written ({error}); make room, then run it again"})
    except Exception as error:
        _say(answers, {"error": f"a process failed ({type(error).__name__}: {error}); run it again, and report this"})


def _obey(order: dict[str, Any], folder: JobFolder, encoder: Encoder, board: Board) -> dict[str, Any]:
    if "alone" in order:
        try_one(folder, order["shard"], order["alone"], encoder, board.beat)
    else:
        blamed = {int(place): encoder.failure(code) for place, code in order["blamed"].items()}
        run_shard(folder, order["shard"], encoder, board.beat, blamed)
    board.beat(ELSEWHERE)
    return order


def _say(answers: int, words: dict[str, Any]) -> None:
    os.write(answers, json.dumps(words).encode() + b"\n")


def _silence() -> None:
    """Send what libraries print about files nowhere: it would come between the lines of the answers."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(null, descriptor)
    os.close(null)


if __name__ == "__main__":
    main()
