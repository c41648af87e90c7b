"""The README does what it says: every command and example in it runs, against what `make demo` makes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolatent_train.service import service

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROGRAM = Path(sys.executable).with_name("isolatent")


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language, continued lines joined."""
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return [block.replace("\\\n", " ") for block in found]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where `make demo`'s command ran, and what it printed."""
    folder = tmp_path_factory.mktemp("readme")
    done = subprocess.run([PROGRAM, "quickstart", "--out", "demo"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, done.stdout


@pytest.fixture(scope="module")
def address(demo: tuple[Path, str]) -> Iterator[str]:
    """What `make serve` would serve."""
    with service(sorted((demo[0] / "demo" / "bundles").iterdir())) as url:
        yield url


def run_shell(line: str, folder: Path, address: str) -> str:
    """Run one of the README's lines where the demo ran, asking the service under test."""
    line = line.replace("http://127.0.0.1:8000", address)
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize(("target", "command"), [("demo", "isolatent quickstart"), ("serve", "isolatent serve")])
def test_the_two_commands_are_those_that_run_here(target: str, command: str, tmp_path: Path) -> None:
    assert f"    make {target} " in README
    (tmp_path / "ready").touch()
    dry = subprocess.run(["make", "-n", target, f"READY={tmp_path}/ready"], cwd=ROOT, capture_output=True, text=True)
    assert command in dry.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", ["digits", "shapes"])
def test_the_demo_shows_that_consistency_halves_the_movement(demo: tuple[Path, str], recipe: str) -> None:
    folder, printed = demo
    metrics = {
        arm: json.loads((folder / "demo/runs" / f"{recipe}-{arm}-seed0" / "evaluation.json").read_text())["metrics"]
        for arm in ("base", "cr")
    }
    assert metrics["cr"]["consistency_kl_normalized"] <= 0.5 * metrics["base"]["consistency_kl_normalized"]
    assert metrics["cr"]["retrieval_top1"] > metrics["base"]["retrieval_top1"]
    assert metrics["cr"]["probe_accuracy"] > metrics["cr"]["probe_accuracy_untrained"]
    assert f"{metrics['cr']['consistency_kl_normalized']:.3f}" in printed
    assert printed.count("the same embedding, bit for bit") == 2


@pytest.mark.parametrize("recipe", ["digits", "shapes"])
@pytest.mark.parametrize("picture", ["reconstructions.png", "traversal.png", "stability.png"])
def test_the_demo_leaves_pictures(demo: tuple[Path, str], recipe: str, picture: str) -> None:
    content = (demo[0] / "demo" / recipe / picture).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 2000


def test_the_curl_line_answers_a_posterior(demo: tuple[Path, str], address: str) -> None:
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("curl")]
    answer = json.loads(run_shell(line, demo[0], address))
    assert answer["data"][0]["object"] == "posterior"


def test_the_python_example_prints_a_posterior(
    demo: tuple[Path, str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo[0])
    (block,) = blocks("python")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block.replace("http://127.0.0.1:8000", address), {})
    assert "[" in printed.getvalue()


@pytest.mark.timeout(600)
def test_the_steps_run_one_after_another(demo: tuple[Path, str], address: str) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("isolatent ")]
    assert [line.split()[1] for line in lines] == ["train", "evaluate", "export", "verify", "posterior", "reconstruct"]
    for line in lines:
        assert run_shell(line, demo[0], address)


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
