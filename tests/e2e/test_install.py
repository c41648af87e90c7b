"""What `pip install isolatent` gives: a light client, and a word on what to install for the rest."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new virtual environment with isolatent and no extras."""
    home = tmp_path_factory.mktemp("plain")
    venv.create(home, with_pip=True)
    subprocess.run([home / "bin" / "pip", "install", "--quiet", str(ROOT)], check=True)
    return home / "bin"


def test_the_client_comes_with_httpx2_and_numpy_only(plain: Path) -> None:
    listed = subprocess.run([plain / "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    names = {package["name"].lower() for package in json.loads(listed.stdout)} - {"pip", "setuptools"}
    assert {"isolatent", "httpx2", "numpy"} <= names
    assert not names & {"torch", "pydantic", "fastapi", "pillow", "onnxruntime", "safetensors"}
    assert len(names) <= 10


def test_importing_it_takes_well_under_a_second(plain: Path) -> None:
    program = "import time; t = time.perf_counter(); import isolatent; print(time.perf_counter() - t)"
    seconds = [float(subprocess.check_output([plain / "python", "-c", program])) for _ in range(5)]
    assert min(seconds) < 0.9


@pytest.mark.parametrize(
    ("command", "extra"), [("serve", "serve"), ("train", "train"), ("verify", "export"), ("quickstart", "all")]
)
def test_a_missing_extra_is_named_with_its_pip_line(plain: Path, command: str, extra: str) -> None:
    done = subprocess.run([plain / "isolatent", command, "x"], capture_output=True, text=True)
    assert done.returncode == 1
    assert f'pip install "isolatent[{extra}]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_lists_every_command_without_the_extras(plain: Path) -> None:
    text = subprocess.check_output([plain / "isolatent", "--help"], text=True)
    for command in ("quickstart", "train", "evaluate", "export", "verify", "serve", "embed"):
        assert f"  {command}" in text


def test_this_environment_has_one_version_everywhere() -> None:
    from importlib.metadata import version

    import isolatent

    assert version("isolatent") == isolatent.__version__
    assert sys.version_info >= (3, 11)
