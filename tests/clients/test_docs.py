"""The examples of docs/sdk.md run as they stand, against real services of an image and of a cloud model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import isolatent
from isolatent import APIStatusError
from isolatent.cli import main

DOCS = Path(__file__).parents[2] / "docs" / "sdk.md"


@pytest.fixture
def text(service_url: str, cloud_url: str) -> str:
    """The page, with the addresses of the services that run."""
    return DOCS.read_text().replace("http://127.0.0.1:8000", service_url).replace("http://127.0.0.1:8001", cloud_url)


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(pngs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with digit.png, images/ and chair.off, as the examples assume."""
    (tmp_path / "images").mkdir()
    pngs[0].rename(tmp_path / "digit.png")
    for path in pngs[1:4]:
        path.rename(tmp_path / "images" / path.name)
    (tmp_path / "chair.off").write_text("OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
def test_the_python_examples_run(text: str) -> None:
    names: dict[str, object] = {}
    for block in blocks("python", text):
        exec(compile(block, str(DOCS), "exec"), names)
    assert Path("kept.png").is_file()
    assert Path("kept.ply").is_file()


@pytest.mark.usefixtures("folder")
def test_the_commands_run(text: str, service_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOLATENT_BASE_URL", service_url)
    for line in blocks("sh", text)[0].splitlines():
        assert main(shlex.split(line)[1:]) == 0, line


def test_every_error_is_named() -> None:
    kinds = [kind for kind in vars(isolatent).values() if isinstance(kind, type) and issubclass(kind, APIStatusError)]
    text = DOCS.read_text()
    assert [kind.__name__ for kind in kinds if kind.__name__ not in text] == []
