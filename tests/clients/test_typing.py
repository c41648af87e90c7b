"""A user's code is clean for the strict type checkers, with the package as it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).with_name("user_code.py")


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False)


def test_mypy_strict_finds_nothing(tmp_path: Path) -> None:
    found = run("mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", str(CODE), cwd=tmp_path)
    assert found.returncode == 0, found.stdout


def test_pyright_strict_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    found = run("pyright", "--outputjson", "--pythonpath", sys.executable, str(CODE), cwd=tmp_path)
    if not found.stdout.startswith("{"):
        pytest.skip(f"pyright fetches itself when it first runs, and could not: {found.stderr[-200:]}")
    diagnostics = json.loads(found.stdout)["generalDiagnostics"]
    assert [f"{each['range']['start']['line'] + 1}: {each['message']}" for each in diagnostics] == []
