"""Helpers that the tests of whole flows share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("isolatent")


def command(where: Path, *arguments: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `isolatent` in a folder and return what it said."""
    done = subprocess.run([PROGRAM, *arguments], cwd=where, capture_output=True, text=True)
    assert done.returncode == expected, done.stderr[-2000:]
    return done
