"""Bundles: written whole or not at all, read with suspicion."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isolatent_export import parity
from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.runtime import OnnxRuntime
from isolatent_export.verify import load_verified, verify


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "tiny"))


def test_all_engines_agree_with_torch_on_the_golden_samples(bundle_path: Path) -> None:
    found = verify(Bundle.open(bundle_path), torchscript=True, pt2=True)
    assert found.problems == ()
    assert {(row.engine, row.batch) for row in found.parity} == {
        (engine, batch) for engine in ("CPUExecutionProvider", "TorchScript", "torch.export") for batch in (1, 2, 7)
    }
    assert max(row.mean for row in found.parity) <= 1e-5


def test_the_manifest_records_the_measured_parity(bundle_path: Path) -> None:
    rows = Bundle.open(bundle_path).manifest.parity
    assert len(rows) == 9
    assert 0 < max(row.log_variance for row in rows) <= 1e-5


def test_pixels_go_in_as_uint8_and_reconstructions_come_out_in_0_to_1(bundle_path: Path) -> None:
    runtime = load_verified(Bundle.open(bundle_path))
    mean, log_variance = runtime.encode(np.full((3, 16, 16, 1), 255, np.uint8))
    pixels = runtime.decode(mean)
    assert mean.shape == log_variance.shape == (3, 8)
    assert pixels.shape == (3, 16, 16, 1)
    assert 0 <= pixels.min() < pixels.max() <= 1


@pytest.mark.parametrize(
    "name", ["encoder.onnx", "decoder.onnx", "model.ts", "weights.safetensors", "golden.safetensors"]
)
def test_one_flipped_byte_is_found_and_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: sha256"):
        load_verified(Bundle.open(copy))
    assert [p for p in verify(Bundle.open(copy)).problems if p.startswith(name)]


def test_a_missing_file_and_an_extra_file_are_named(copy: Path) -> None:
    (copy / "model.ts").unlink()
    (copy / "payload.pkl").write_bytes(b"x")
    problems = verify(Bundle.open(copy)).problems
    assert problems == ("model.ts: missing", "payload.pkl: not listed in the manifest")


def test_a_linked_file_is_refused(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "config.json", tmp_path / "elsewhere.json")
    (copy / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match=r"config\.json: not a plain file"):
        Bundle.open(copy).require_intact()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this isolatent reads 1"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"name": "../x"}, "name: String should match"),
        ({"files": {}}, r"encoder\.onnx.* not listed"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(copy: Path, change: dict[str, object], message: str) -> None:
    manifest = json.loads((copy / "manifest.json").read_text()) | change
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


def test_a_file_name_that_leaves_the_bundle_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["../outside"] = {"sha256": "0" * 64, "bytes": 1}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle.open(copy)


def test_changed_golden_outputs_refuse_the_bundle_even_with_matching_hashes(copy: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from isolatent_export.bundle import file_digest

    golden = load_file(copy / "golden.safetensors")
    save_file(golden | {"mean": golden["mean"] + np.float32(1e-3)}, copy / "golden.safetensors")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["golden.safetensors"]["sha256"] = file_digest(copy / "golden.safetensors")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"mean differs by 0\.001"):
        load_verified(Bundle.open(copy))


def test_no_bundle_at_all_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="isolatent export RUN"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"not a bundle, manifest\.json is missing"):
        Bundle.open(tmp_path)


def test_reading_a_bundle_loads_no_torch(bundle_path: Path) -> None:
    program = (
        "import sys\nfrom isolatent_export.bundle import Bundle\nfrom isolatent_export.verify import load_verified\n"
        f"load_verified(Bundle.open({str(bundle_path)!r}))\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_linked_manifest_is_refused(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "manifest.json", tmp_path / "elsewhere.json")
    (copy / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match=r"manifest\.json: a symbolic link; copy the file itself"):
        Bundle.open(copy)


def test_what_cannot_be_read_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match=r"cannot be read \(File name too long\); check its name"):
        Bundle.open(copy / ("x" * 300))
    bundle, opened = Bundle.open(copy), Path.open

    def deny(self: Path, *how: Any, **more: Any) -> Any:
        if self.name == "model.ts":
            raise PermissionError(13, "Permission denied")
        return opened(self, *how, **more)

    monkeypatch.setattr(Path, "open", deny)
    assert verify(bundle).problems == ("model.ts: cannot be read (Permission denied)",)


def test_golden_outputs_that_are_not_finite_are_infinitely_far_from_any_other(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    golden, runtime = bundle.golden(), OnnxRuntime(bundle, threads=1)
    mean = golden.mean.copy()
    mean[0, 0] = np.nan
    wrong = parity.measure(runtime, replace(golden, mean=mean), "any")
    assert {row.mean for row in wrong} == {np.inf}
    assert parity.excess(wrong, bundle.manifest.tolerance.model_copy(update={"mean": np.inf}))
