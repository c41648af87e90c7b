"""The open-loop generator against a server that does nothing."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
REQUEST = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"


@contextlib.contextmanager
def null_server(*options: str) -> Iterator[int]:
    command = [sys.executable, BENCHMARKS / "null_server.py", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        process.kill()


def offered(folder: Path, port: int, due: np.ndarray, *options: str) -> dict[str, np.ndarray]:
    (folder / "0").write_bytes(REQUEST)
    np.save(folder / "due.npy", due)
    command = [sys.executable, BENCHMARKS / "open_loop.py", "127.0.0.1", str(port), folder, *options]
    subprocess.run(command, check=True, timeout=100)
    with np.load(folder / "offered.npz") as arrays:
        return dict(arrays)


def test_every_request_is_answered_and_refusals_are_known_by_their_header(tmp_path: Path) -> None:
    with null_server("--capacity", "200") as port:
        result = offered(tmp_path, port, np.arange(1000) / 1000)
    assert set(result["status"].tolist()) == {200, 429}
    assert np.array_equal(result["retry_after"], result["status"] == 429)
    assert np.isfinite(result["done"]).all()


def test_a_stall_counts_for_every_request_that_was_due_in_it(tmp_path: Path) -> None:
    with null_server("--stall", "1") as port:
        result = offered(tmp_path, port, np.arange(400) / 200)
    # A client that waits for each answer would see one slow request; 200 a second were due.
    assert (result["done"] - result["due"] > 0.5).sum() >= 100


def test_requests_beyond_the_connections_wait_for_one(tmp_path: Path) -> None:
    with null_server("--stall", "0.5") as port:
        result = offered(tmp_path, port, np.arange(400) / 400, "--connections", "4")
    assert result["connections"] == 4
    assert (result["status"] == 200).all()


def test_requests_that_nobody_takes_are_broken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = offered(tmp_path, port, np.arange(20) / 1000)
    assert (result["status"] == -1).all()
