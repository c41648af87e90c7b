"""The examples of docs/sdk.md and its pages run as they stand, against real services of an image and a cloud model."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest

import isolatent
from isolatent import Client, IsolatentError
from isolatent.cli import main

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "sdk.md", *sorted((DOCS / "sdk").glob("*.md"))]


def blocks(language: str, page: Path) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(pngs: list[Path], bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with digit.png, images/, chair.off and bundle/, as the examples assume."""
    (tmp_path / "bundle").symlink_to(bundle_path)
    (tmp_path / "images").mkdir()
    pngs[0].rename(tmp_path / "digit.png")
    for path in pngs[1:4]:
        path.rename(tmp_path / "images" / path.name)
    (tmp_path / "chair.off").write_text("OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks("python", page)], ids=lambda page: page.stem)
def test_the_python_examples_run(page: Path, jobs_url: str, cloud_url: str) -> None:
    names: dict[str, object] = {}
    for block in blocks("python", page):
        here = block.replace("http://127.0.0.1:8000", jobs_url).replace("http://127.0.0.1:8001", cloud_url)
        exec(compile(here, str(page), "exec"), names)


@pytest.mark.usefixtures("folder")
def test_the_commands_run(jobs_url: str, cloud_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOLATENT_BASE_URL", jobs_url)
    (commands,) = blocks("sh", DOCS / "sdk" / "commands.md")
    for line in commands.replace("http://127.0.0.1:8001", cloud_url).splitlines():
        assert main(shlex.split(line)[1:]) == 0, line


def test_every_error_is_named() -> None:
    kinds = [kind for kind in vars(isolatent).values() if isinstance(kind, type) and issubclass(kind, IsolatentError)]
    text = (DOCS / "sdk" / "errors.md").read_text()
    assert [kind.__name__ for kind in kinds if kind.__name__ not in text] == []


def test_every_method_is_in_the_table() -> None:
    methods = {name for name, value in vars(Client).items() if inspect.isfunction(value) and name[0] != "_"} - {"close"}
    table = (DOCS / "sdk.md").read_text()
    assert [name for name in methods if f"`{name}`" not in table] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)", page.read_text()):
        assert (page.parent / target).is_file(), target
    assert page.name == "sdk.md" or f"sdk/{page.name}" in (DOCS / "sdk.md").read_text()
