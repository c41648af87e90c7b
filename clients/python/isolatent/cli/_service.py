"""What the commands that ask a service share: its address, its errors in one line, files, and JSON lines."""

from __future__ import annotations

import argparse
import glob
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isolatent._backends import BACKENDS
from isolatent._client import Client
from isolatent._errors import IsolatentError
from isolatent._options import BASE_URL
from isolatent.cli import CommandError


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    """--url, --backend, --api-key, --timeout and --json."""
    group = parser.add_argument_group("service")
    group.add_argument("--url", help=f"address of the service (default: ISOLATENT_BASE_URL, else {BASE_URL})")
    group.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0], help="what listens there (isolatent)")
    group.add_argument("--api-key", help="better set ISOLATENT_API_KEY: other users can see a command line")
    group.add_argument("--timeout", type=_seconds, default=30.0, help="seconds for one request (default: 30)")
    group.add_argument("--json", action="store_true", help="print JSON lines, for programs")


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """--model, the name of a served model."""
    parser.add_argument("--model", help="name of the model, needed where several are served; see `isolatent models`")


@contextmanager
def service(args: argparse.Namespace, max_retries: int = 2) -> Iterator[Client]:
    """A client for what the arguments say; its errors leave as CommandError."""
    options = {"api_key": args.api_key, "timeout": args.timeout, "backend": args.backend, "max_retries": max_retries}
    try:
        with Client(args.url, **options) as client:
            yield client
    except (IsolatentError, ValueError) as error:
        raise CommandError(str(error)) from error


def files(patterns: Sequence[str]) -> list[str]:
    """The files that paths and glob patterns name, sorted within a pattern. Raises CommandError for one without."""
    return [path for pattern in patterns for path in _matches(pattern)]


def _matches(pattern: str) -> list[str]:
    if Path(pattern).is_dir():
        folder = pattern.rstrip("/")
        raise CommandError(f"{pattern} is a directory; name its files, such as '{folder}/*.png' or '{folder}/*.ply'")
    if Path(pattern).exists():  # also a file whose name looks like a pattern
        return [pattern]
    found = [path for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]  # noqa: PTH207
    if not found:
        raise CommandError(f"no file {pattern}; give files, or a pattern in quotes such as 'images/*.png'")
    return found


def out_path(text: str, suffixes: Sequence[str]) -> Path:
    """The path to write to, before any work is done. Raises CommandError on another suffix or a missing folder."""
    path = Path(text)
    if path.suffix.lower() not in suffixes:
        raise CommandError(f"--out {text}: the name must end in {' or '.join(suffixes)}")
    if path.is_dir() or not path.parent.is_dir():
        raise CommandError(f"--out {text}: not a file in an existing folder; make the folder {path.parent} first")
    return path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there complete or not at all. Raises CommandError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CommandError(f"{path} cannot be written ({error.strerror}); choose another --out") from None


def print_json(value: object) -> None:
    """One line of JSON."""
    print(json.dumps(value))


def numbers(array: NDArray[np.float32]) -> list[float]:
    """The shortest decimals that read back to the same float32 numbers."""
    return [float(str(number)) for number in array]


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return seconds
