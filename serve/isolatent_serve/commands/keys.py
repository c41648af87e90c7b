"""isolatent keys new NAME: a fresh key, shown once, and the line that makes a service know it."""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path

from isolatent.cli import CommandError
from isolatent_serve import keys

_BYTES = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("action", choices=("new",), help="make a key")
    parser.add_argument("name", metavar="NAME", help="who it is for: what the service's log shows")
    parser.add_argument("--file", type=Path, help="add the line to this file of keys, which is made if need be")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print a key and its line. Raises CommandError for a name or file that cannot be used."""
    key = "isl_" + secrets.token_urlsafe(_BYTES)
    line = f"{args.name}:sha256:{keys.digest(key).hex()}"
    try:
        keys.parse(line, "NAME")
        if args.file:
            _add(args.file, line)
    except keys.KeysError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{args.file}: {error.strerror}; give a file that you may write") from None
    if args.json:
        print(json.dumps({"name": args.name, "key": key, "line": line}))
        return 0
    print(f"key (shown this once)       {key}")
    print(f"line for serve --keys FILE  {line}")
    return 0


def _add(path: Path, line: str) -> None:
    """Append `line` in one write: a service that reads the file at this moment sees all of it or nothing."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    keys.parse(f"{before}\n{line}", str(path))  # a name or line that would be refused is refused here
    separator = "\n" if before and not before.endswith("\n") else ""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "w", encoding="utf-8") as file:
        file.write(f"{separator}{line}\n")
