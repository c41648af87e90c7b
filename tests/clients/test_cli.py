"""The `isolatent` command, end to end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isolatent import Client
from isolatent.cli import COMMANDS, main

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "fastapi":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from isolatent.cli import main
sys.exit(main(["serve", "bundle"]))
"""


@pytest.fixture
def at(service_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOLATENT_BASE_URL", service_url)


def test_help_lists_every_command_and_imports_none() -> None:
    code = "import sys; from isolatent.cli import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"\n  {name}" in out.replace("    ", "  ") for name in COMMANDS)
    assert not [command.module for command in COMMANDS.values() if command.module in out.split()]


def test_python_m_isolatent_tells_the_version() -> None:
    command = [sys.executable, "-m", "isolatent", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "isolatent 0.1.0\n"


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["nonsense"], ["posterior"], ["embed", "a.png"], ["models", "--timeout", "0"]])
def test_wrong_usage_exits_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2


def test_a_missing_extra_is_one_line_that_names_the_install() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "isolatent[serve]"' in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("at")
def test_models_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["MODEL", "VERSION", "INPUT", "LATENT", "PROVIDER", "READY"]
    assert row.split() == ["tiny", "1", "image", "16x16x1", "8", "CPUExecutionProvider", "yes"]


def test_models_prints_all_facts_as_json_lines(two_models_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", two_models_url, "--json"]) == 0
    models = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(model["id"], model["latent"]["size"]) for model in models] == [("tiny", 8), ("tiny-colour", 6)]


@pytest.mark.usefixtures("at")
def test_posterior_prints_a_row_per_file(pngs: list[Path], client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["posterior", *map(str, pngs[:2])]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    expected = client.posterior(pngs[1])
    assert [row[0] for row in rows] == [str(path) for path in pngs[:2]]
    assert float(rows[1][1]) == pytest.approx(np.linalg.norm(expected.mean), abs=1e-3)
    assert float(rows[1][2]) == pytest.approx(expected.kl, abs=1e-3)
    assert float(rows[1][3]) == pytest.approx(expected.std.mean(), abs=1e-3)


@pytest.mark.usefixtures("at")
def test_posterior_prints_all_numbers_as_json(
    pngs: list[Path], client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["posterior", str(pngs[0]), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    expected = client.posterior(pngs[0])
    assert np.array_equal(np.array(facts["mean"], np.float32), expected.mean)
    assert np.array_equal(np.array(facts["variance"], np.float32), expected.variance)
    assert (facts["file"], facts["model"], np.float32(facts["kl"])) == (str(pngs[0]), "tiny", np.float32(expected.kl))


def test_a_file_name_that_no_terminal_shows_is_printed_escaped(service_url: str, pngs: list[Path]) -> None:
    odd = pngs[0].rename(pngs[0].parent / "\udcff.png")
    for option, shown in (("--timeout=30", b"\\udcff.png "), ("--json", b'\\udcff.png", ')):
        command = [sys.executable, "-m", "isolatent", "posterior", str(odd), "--url", service_url, option]
        assert shown in subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.usefixtures("at")
def test_embed_expands_patterns_and_keeps_the_names(pngs: list[Path], client: Client, tmp_path: Path) -> None:
    out = tmp_path / "all.npz"
    assert main(["embed", str(tmp_path / "[0-6].png"), "--out", str(out), "--batch-size", "3"]) == 0
    with np.load(out) as file:
        assert file["ids"].tolist() == [str(path) for path in pngs]
        np.testing.assert_allclose(file["embedding"], client.embed(pngs), atol=1e-5)


@pytest.mark.usefixtures("at")
def test_embed_writes_npy_and_says_so_as_json(
    pngs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all.npy"
    assert main(["embed", *map(str, pngs), "--out", str(out), "--json"]) == 0
    assert np.load(out).shape == (7, 8)
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "inputs": 7, "size": 8}
    assert sorted(tmp_path.iterdir()) == sorted([*pngs, out])


def test_reconstruct_writes_a_png(two_models_url: str, tmp_path: Path, pngs: list[Path]) -> None:
    out = tmp_path / "kept.png"
    argv = ["reconstruct", str(pngs[0]), "--out", str(out), "--model", "tiny-colour", "--url", two_models_url]
    assert main(argv) == 0
    with Image.open(out) as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (20, 12), "RGB")


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["posterior", "no-such.png"], "no file no-such.png; give files, or a pattern"),
        (["posterior", "{dir}"], "is a directory; name its files, such as '{dir}/*.png'"),
        (["posterior", "{dir}/0.png", "--model", "huge"], "404 model_not_found"),
        (["posterior", "{dir}/0.png", "--url", "nowhere"], "is no address; write it as http://"),
        (["reconstruct", "{dir}/0.png", "--out", "{dir}/a.jpg"], "must end in .png or .ply or .npy"),
        (["models", "--api-key", "two words"], "the API key holds spaces"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_fix(
    argv: list[str], message: str, pngs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(pngs) == 7
    assert main([argument.replace("{dir}", str(tmp_path)) for argument in argv]) == 1
    error = capsys.readouterr().err
    assert error.startswith("isolatent: error: ")
    assert message.replace("{dir}", str(tmp_path)) in error
    assert error.count("\n") == 1


def test_no_service_says_how_to_start_one(pngs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert main(["posterior", str(pngs[0]), "--url", f"http://127.0.0.1:{port}", "--timeout", "0.5"]) == 1
    error = capsys.readouterr().err
    assert "isolatent serve BUNDLE" in error
    assert error.count("\n") == 1


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isolatent.cli.models.run", interrupt)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "isolatent: interrupted\n"


def test_a_reader_that_leaves_is_no_traceback(service_url: str, pngs: list[Path]) -> None:
    command = [sys.executable, "-m", "isolatent", "posterior", *map(str, pngs * 200), "--json", "--url", service_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
