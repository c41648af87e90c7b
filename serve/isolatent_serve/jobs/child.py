"""The process that computes a job: started at the lowest priority, heard, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMAND = ("-P", "-m", "isolatent_serve.jobs")
"""What the interpreter runs, with the folder and options behind it."""

LOG = "_log"
"""What it writes on stderr, in the folder of the job."""

_HANDED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "OMP_WAIT_POLICY")
# Nothing else of the service's environment, which may hold secrets.

_BLOCK_BYTES = 64 * 2**10
_LOG_BYTES = 2000


class Child:
    """A process that works on the job in `folder`, and ends with the thread that has started it.

    It stays in the session of the service: its priority counts among the processes of that.
    """

    def __init__(self, folder: Path, processes: int) -> None:
        """Raises OSError when it cannot be started."""
        self._log = folder / LOG
        warnings = [f"-W{option}" for option in sys.warnoptions]
        environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        options = ["--processes", str(processes), "--background", "--parent", str(os.getpid())]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *warnings, *COMMAND, str(folder), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        assert self._process.stdout
        self.output = self._process.stdout.fileno()
        self._heard = b""
        self._kill_at: float | None = None
        with contextlib.suppress(OSError):  # when memory is short, this goes first, and the service stays
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text("1000")

    def hear(self) -> list[dict[str, Any]] | None:
        """What it has said since; blocks until it says something. None when it will say no more."""
        said = os.read(self.output, _BLOCK_BYTES)
        if not said:
            return None
        *lines, self._heard = (self._heard + said).split(b"\n")
        return [event for line in lines if (event := _event(line))]

    def end(self, patience: float) -> None:
        """Ask it to end; `press` kills it when that takes longer than `patience` seconds."""
        if self._kill_at is None:
            self._process.terminate()
        self._kill_at = min(self._kill_at or float("inf"), time.monotonic() + patience)

    def press(self) -> None:
        """Kill it if its time is over."""
        if self._kill_at and time.monotonic() > self._kill_at:
            self._process.kill()

    def wait(self, patience: float = 10.0) -> int:
        """Its exit code, negative for a signal. It is killed if it is not gone in time."""
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            assert self._process.stdout
            self._process.stdout.close()

    def last_words(self) -> str:
        """The end of what it wrote on stderr."""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _LOG_BYTES))
            return log.read().decode(errors="replace").strip()
        return ""


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:  # some library's word
        return None
    return event if isinstance(event, dict) else None
