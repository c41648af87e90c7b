"""What a job is to do: settled once, the same from every working directory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from isolatent_serve.jobs import JobError, JobSpec


def spec(model: Path, **changes: Any) -> JobSpec:
    return JobSpec.model_validate({"model": model, "inputs": ("images",)} | changes)


def test_the_posterior_is_always_asked_for_and_outputs_have_one_order(bundle_path: Path) -> None:
    outputs = spec(bundle_path, outputs=("consistency", "embedding", "embedding")).outputs
    assert outputs == ("posterior", "embedding", "consistency")


def test_paths_mean_the_same_from_everywhere_and_addresses_stay(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = spec(bundle_path, inputs=("a/*.png", "s3://bucket/a.zip"))
    assert found.inputs == (str(tmp_path / "a/*.png"), "s3://bucket/a.zip")


def test_a_bundle_that_moved_is_the_same_job_and_another_option_is_not(bundle_path: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(bundle_path, moved)
    assert spec(moved).settled() == spec(bundle_path).settled()
    assert spec(moved, limits={"free_bytes": 9}).settled() == spec(bundle_path).settled()
    assert spec(moved, batch_items=8).settled() != spec(bundle_path).settled()


def test_a_spec_survives_json(bundle_path: Path) -> None:
    before = spec(bundle_path, outputs=("embedding",), column="picture", limits={"pixels": 100, "roots": ("/data",)})
    assert JobSpec.model_validate_json(before.model_dump_json()) == before


@pytest.mark.parametrize("change", [{"inputs": ()}, {"format": "csv"}, {"samples": 0}, {"colour": 1}])
def test_what_no_job_can_be_is_refused(bundle_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(bundle_path, **change)


def test_a_bundle_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="gone: no such directory"):
        spec(tmp_path / "gone").settled()
