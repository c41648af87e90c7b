"""`isolatent jobs`, end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from isolatent import Client
from isolatent.cli import main


@pytest.fixture
def at(jobs_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOLATENT_BASE_URL", jobs_url)


@pytest.fixture
def folder(pngs: list[Path], tmp_path: Path) -> Path:
    """Three pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in pngs[:3]:
        path.rename(folder / path.name)
    return folder


@pytest.mark.usefixtures("at")
def test_a_job_from_folder_to_results(
    folder: Path, jobs_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "create", str(folder), "--outputs", "embedding", "--metadata", "for=tests", "--wait"]) == 0
    job, done = capsys.readouterr().out.splitlines()
    assert done == f"{job} succeeded, 3 of 3 inputs done, 0 failed"
    assert main(["jobs", "list", "--state", "succeeded"]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["JOB", "STATE", "MODEL", "DONE", "FAILED", "CREATED"]
    assert first.startswith(f"{job}  succeeded")
    assert main(["jobs", "show", job]) == 0
    assert re.search(r"^for +tests$", capsys.readouterr().out, re.MULTILINE)
    assert main(["jobs", "results", job]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]] == ["0.png", "1.png", "2.png"]
    assert main(["jobs", "results", job, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with Client(jobs_url) as client:
        for row, expected in zip(rows, client.jobs.get(job).results(), strict=True):
            assert row["id"] == expected.id
            assert np.array_equal(np.array(row["mean"], np.float32), expected.posterior.mean)
            assert row["embedding"] == row["mean"]
    assert main(["jobs", "results", job, "--out", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["part-000000.parquet"]
    assert main(["jobs", "errors", job]) == 0


@pytest.mark.usefixtures("at")
def test_failed_inputs_are_an_exit_code_and_how_to_see_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.png").write_text("no picture")
    assert main(["jobs", "create", str(folder), "--wait", "--json"]) == 1
    said = capsys.readouterr()
    job = json.loads(said.out)
    assert job["counts"] == {"total": 4, "succeeded": 3, "failed": 1}
    assert said.err == f"isolatent: 1 inputs failed: isolatent jobs errors {job['id']}\n"
    assert main(["jobs", "errors", job["id"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "bad.png"
    assert main(["jobs", "wait", job["id"]]) == 1


@pytest.mark.usefixtures("at")
def test_a_job_is_cancelled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "create", str(folder), "--json"]) == 0
    job = json.loads(capsys.readouterr().out)["id"]
    assert main(["jobs", "wait", job, "--wait-seconds", "0"]) == 1
    assert f"it goes on: isolatent jobs wait {job}\n" in capsys.readouterr().err
    assert main(["jobs", "results", job]) == 1
    assert "partial" in capsys.readouterr().err
    assert main(["jobs", "cancel", job]) == 0
    assert "cancel" in capsys.readouterr().out
    assert main(["jobs", "wait", job]) == 1
    assert "was cancelled" in capsys.readouterr().err
    assert main(["jobs", "results", job, "--partial", "--json"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["show", "job-0"], "404"),
        (["create", "missing/"], "no file or folder"),
        (["create", "/etc", "--remote"], "--jobs-input"),
        (["list", "--url", "nowhere"], "is no address"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_fix(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", *argv]) == 1
    error = capsys.readouterr().err
    assert error.startswith("isolatent: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "argv", [[], ["nonsense"], ["show"], ["create", "a.zip", "--outputs", "soul"], ["create", "a", "--metadata", "x"]]
)
def test_wrong_usage_exits_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["jobs", *argv])
    assert caught.value.code == 2
