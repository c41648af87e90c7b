"""A service started for the length of a with-block, as a process of its own: what the quickstart queries."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2


class ServiceError(Exception):
    """The service did not start or did not answer as it must; the message holds its last words."""


@contextmanager
def service(bundles: list[Path], *, timeout: float = 120.0) -> Iterator[str]:
    """Serve `bundles` on a free loopback port and yield the URL once every model is ready (seconds: `timeout`)."""
    command = [sys.executable, "-m", "isolatent", "serve", *map(str, bundles), "--port", "0", "--json"]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            assert process.stdout is not None
            announced = process.stdout.readline()  # empty when the process has ended
            url = str(json.loads(announced)["url"]) if announced else None
            if url is None or not _is_ready(url, process, timeout):
                log.seek(0)
                raise ServiceError(f"the service did not start: {(log.read().splitlines() or ['no output'])[-1]}")
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _is_ready(url: str, process: subprocess.Popen[bytes], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx2.TransportError):  # not accepting yet
            if httpx2.get(f"{url}/readyz").status_code == 200:
                return True
        time.sleep(0.1)
    return False
