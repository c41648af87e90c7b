"""inspect and compare: what a bundle says of itself, and whether two of them say the same of an input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isolatent.cli import main
from isolatent_export.comparison import compare
from isolatent_export.manifest import ImageInput, Tolerance
from support import export_untrained

TIGHT = Tolerance()


class Fixed:
    """An engine that puts out the same posterior for every item."""

    def __init__(self, mean: list[float], log_variance: list[float]) -> None:
        self.posterior = mean, log_variance

    def encode(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, log_variance = (np.tile(np.float32(part), (len(inputs), 1)) for part in self.posterior)
        return mean, log_variance

    def decode(self, latents: np.ndarray) -> np.ndarray:
        return latents


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `tiny`, with other weights."""
    spec = ImageInput(height=16, width=16, channels=1)
    return export_untrained(tmp_path_factory.mktemp("other") / "other", spec, latent=8, seed=8).path


def test_divergence_and_angle_are_those_of_the_definitions() -> None:
    found = compare(Fixed([1, 0], [0, 0]), Fixed([0, 1], [np.log(4), 0]), np.zeros((70, 1)), (TIGHT, TIGHT))
    assert found.inputs == 70
    assert found.kl_max == pytest.approx(0.5 * (np.log(4) + 1 / 4 - 1 + 1 / 4 + 1))
    assert (found.cosine_min, found.mean, found.log_variance) == (0, 1, pytest.approx(np.log(4)))
    assert not found.same


def test_tiny_differences_have_tiny_divergences_not_rounding_errors() -> None:
    found = compare(Fixed([1, 2], [0, 0]), Fixed([1, 2], [0, 1e-6]), np.zeros((1, 1)), (TIGHT, TIGHT))
    assert found.kl_max == pytest.approx(1e-12 / 4, rel=1e-2)
    assert found.same


def test_not_a_number_is_never_the_same() -> None:
    found = compare(Fixed([np.nan], [0]), Fixed([0], [0]), np.zeros((1, 1)), (TIGHT, TIGHT))
    assert not found.same


def test_a_bundle_is_the_same_as_itself(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(bundle_path), str(bundle_path)]) == 0
    out = capsys.readouterr().out
    assert "16 inputs" in out
    assert "the same within tolerance" in out


def test_other_weights_are_told_apart_on_files(
    bundle_path: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        Image.fromarray(np.full((20, 20), 80 * index, np.uint8)).save(tmp_path / f"{index}.png")
    assert main(["compare", str(bundle_path), str(other), str(tmp_path / "*.png"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["inputs"], found["same"]) == (3, False)
    assert found["mean"] > found["tolerance"]["mean"] == 1e-5


@pytest.mark.parametrize("second", ["colour_bundle_path", "cloud_bundle_path"])
def test_bundles_of_different_inputs_cannot_be_compared(
    bundle_path: Path, second: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(bundle_path), str(request.getfixturevalue(second))]) == 1
    assert "take different inputs" in capsys.readouterr().err


def test_a_file_that_is_no_input_is_named(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(bundle_path), str(bundle_path), str(bundle_path / "config.json")]) == 1
    assert "config.json" in capsys.readouterr().err


@pytest.mark.parametrize(("fixture", "expected"), [("bundle_path", "16 x 16 grey"), ("cloud_bundle_path", "64 points")])
def test_inspect_says_what_there_is_to_know(
    fixture: str, expected: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    path = request.getfixturevalue(fixture)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    for part in (expected, "lambda 0.1", "nll 1.5", "TorchScript, batch 7", "encoder.pt2", str(path), "seed 7"):
        assert part in out


def test_inspect_as_json_is_the_manifest_with_sizes_and_pictures(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(bundle_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["pictures"] == [str(bundle_path / "reconstructions.png")]
    assert facts["bytes"] == sum(f.stat().st_size for f in bundle_path.iterdir() if f.name != "manifest.json")
    assert facts["name"] == "tiny"


def test_inspect_refuses_what_is_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    assert "manifest.json is missing" in capsys.readouterr().err


def test_what_a_stranger_wrote_into_a_manifest_cannot_steer_the_terminal(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bundle_path, tmp_path / "copy"))
    facts = json.loads((copy / "manifest.json").read_text())
    facts["metrics"] = {"\x1b[2Jgood": 1.0}
    (copy / "manifest.json").write_text(json.dumps(facts))
    assert main(["inspect", str(copy)]) == 0
    assert r"\x1b[2Jgood 1" in capsys.readouterr().out
