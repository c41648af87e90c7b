"""Options of `isolatent serve` for batch jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolatent.cli import main


@pytest.mark.parametrize(("jobs", "inputs"), [("data/jobs", "data"), ("data", "data/images"), ("data", "data")])
def test_what_others_upload_is_no_input(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str], jobs: str, inputs: str
) -> None:
    (tmp_path / inputs).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / inputs)
    command = ["serve", bundle_path, "--port", "0", "--jobs", tmp_path / jobs, "--jobs-input", tmp_path / "link"]
    assert main([str(each) for each in command]) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "lie in each other" in said
    assert "name directories beside each other" in said
