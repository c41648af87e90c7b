"""Bundles from strangers: refused with the reason, before anything in them is used."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from safetensors.numpy import load_file, save

from isolatent.cli import main
from isolatent_export import Bundle, BundleError
from isolatent_export import device as devices
from isolatent_export.bundle import file_digest
from isolatent_export.device import DeviceError
from isolatent_export.verify import load_verified, verify


class Payload:
    """What makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "tiny"))


def change_manifest(bundle: Path, **changes: Any) -> None:
    file = bundle / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def put(bundle: Path, name: str, content: bytes) -> None:
    """A file with the hash that the manifest then states: its maker can do that, too."""
    (bundle / name).write_bytes(content)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files[name] = {"sha256": file_digest(bundle / name), "bytes": len(content)}
    change_manifest(bundle, files=files)


@pytest.mark.parametrize("name", ["weights.safetensors", "golden.safetensors", "encoder.onnx", "config.json"])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_in_place_of_plain_data_is_refused_and_not_run(copy: Path, name: str, kind: str) -> None:
    trap, file = copy.parent / "sprung", copy.parent / "payload"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Payload(trap)))
    else:
        torch.save(Payload(trap), file)
    put(copy, name, file.read_bytes())
    with pytest.raises(BundleError, match=f"{name}: not what its name says, but an? (pickle|archive)"):
        load_verified(Bundle.open(copy))
    assert not trap.exists()


@pytest.mark.parametrize("name", ["payload.pkl", "model.pt", "setup.py", "encoder.onnx.data"])
def test_a_listed_file_of_a_foreign_kind_is_refused(copy: Path, name: str) -> None:
    put(copy, name, b"x")
    with pytest.raises(BundleError, match=f"'{name}' is no kind of file that bundles have"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["encoder.onnx", "model.ts", "encoder.pt2", "golden.safetensors", "README.md"])
def test_a_truncated_file_is_refused(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=rf"{name}: {len(content) // 2} bytes, the manifest says {len(content)}"):
        load_verified(Bundle.open(copy))


def test_a_truncated_graph_with_a_matching_hash_is_refused(copy: Path) -> None:
    put(copy, "encoder.onnx", (copy / "encoder.onnx").read_bytes()[:500])
    with pytest.raises(BundleError, match=r"encoder\.onnx: ONNX Runtime cannot load it"):
        load_verified(Bundle.open(copy))


def test_a_truncated_manifest_is_refused(copy: Path) -> None:
    content = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(content[: len(content) // 2])
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.open(copy)


def test_a_manifest_of_absurd_size_is_not_read(copy: Path) -> None:
    with (copy / "manifest.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(BundleError, match="are no manifest"):
        Bundle.open(copy)


@pytest.mark.parametrize("where", ["../secret", "/etc/hostname", "weights.safetensors"])
def test_a_graph_that_reads_its_weights_from_other_files_is_refused(copy: Path, where: str) -> None:
    graph = onnx.load(copy / "encoder.onnx")
    weights = max(graph.graph.initializer, key=lambda each: len(each.raw_data))
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", where
    put(copy, "encoder.onnx", graph.SerializeToString())
    with pytest.raises(BundleError, match=r"encoder\.onnx: ONNX Runtime cannot load it"):
        load_verified(Bundle.open(copy))


@pytest.mark.parametrize(
    ("tools", "remedy"),
    [
        ({"isolatent": "0.9.1"}, r'isolatent 0\.9\.1 wrote it: pip install -U "isolatent>=0\.9\.1"'),
        ({"isolatent": '0"; rm -rf /'}, "install the isolatent release that wrote it"),
        (["isolatent"], "install the isolatent release that wrote it"),
        (None, "install the isolatent release that wrote it"),
    ],
)
def test_a_newer_schema_names_the_release_that_reads_it(copy: Path, tools: Any, remedy: str) -> None:
    change_manifest(copy, schema_version=2, tools=tools, novelty=True)
    with pytest.raises(BundleError, match=f"schema version 2, this isolatent reads 1; {remedy}"):
        Bundle.open(copy)


def test_verifying_runs_the_programs_in_a_bundle_only_when_told_to(copy: Path) -> None:
    trap = copy.parent / "sprung"
    with zipfile.ZipFile(copy / "encoder.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    constants = next(name for name in members if name.endswith("model_constants_config.json"))
    folder = constants.rpartition("/")[0]
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    members[constants] = json.dumps({"config": {"x": entry}}).encode()
    members[f"{folder}/opaque_obj_0"] = pickle.dumps(Payload(trap))
    with zipfile.ZipFile(copy / "trapped", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    content = (copy / "trapped").read_bytes()
    (copy / "trapped").unlink()
    put(copy, "encoder.pt2", content)
    bundle = Bundle.open(copy)
    assert verify(bundle).problems == ()
    load_verified(bundle)
    assert not trap.exists()
    torch.export.load(copy / "encoder.pt2")  # why it must be asked for
    assert trap.exists()


@pytest.mark.parametrize("name", ["encoder.onnx", "model.ts", "encoder.pt2"])
def test_what_does_not_run_is_a_finding(copy: Path, name: str) -> None:
    put(copy, name, (copy / "decoder.onnx").read_bytes())
    found = verify(Bundle.open(copy), torchscript=True, pt2=True)
    (problem,) = found.problems
    assert re.search(rf"{name}.* does not run \(.+\); export the bundle again", problem)
    assert len({row.engine for row in found.parity}) == 2  # the other engines ran


def test_verify_says_what_does_not_run_and_measures_the_others(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(copy, "model.ts", b"no program")
    assert main(["verify", str(copy), "--all-engines"]) == 1
    printed = capsys.readouterr()
    assert "model.ts does not run (" in printed.out
    assert "CPUExecutionProvider, batch 1: mean" in printed.out
    assert "torch.export, batch 1: mean" in printed.out
    assert printed.err.count("\n") == 1


def test_what_does_not_run_is_not_loaded(copy: Path) -> None:
    put(copy, "encoder.onnx", (copy / "decoder.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"encoder\.onnx with decoder\.onnx does not run \("):
        load_verified(Bundle.open(copy))


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"input": np.zeros((16, 16, 16, 1), np.float32)}, "input is float32, expected uint8"),
        ({"mean": np.full((16, 8), np.nan, np.float32)}, "mean has numbers that are not finite"),
        ({"log_variance": np.full((16, 8), -np.inf, np.float32)}, "log_variance has numbers that are not finite"),
    ],
)
def test_golden_samples_that_prove_nothing_are_a_finding(copy: Path, changes: dict[str, Any], finding: str) -> None:
    golden = load_file(copy / "golden.safetensors")
    put(copy, "golden.safetensors", save(golden | changes))
    (problem,) = verify(Bundle.open(copy)).problems
    assert finding in problem


@pytest.mark.parametrize("allowed", [float("inf"), float("nan"), 1e30, 0.0, -1.0])
def test_a_tolerance_that_lets_anything_or_nothing_pass_is_refused(copy: Path, allowed: float) -> None:
    change_manifest(copy, tolerance={"mean": allowed, "log_variance": 1e-5, "reconstruction": 1e-5})
    with pytest.raises(BundleError, match=r"tolerance\.mean: Input should be"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        ({"resize": "crop"}, ["manifest.json: input.resize is 'fit', config.json says 'crop'"]),
        ({"fill": 255}, ["manifest.json: input.fill is 0, config.json says 255"]),
        ({"size": [16, 24]}, ["manifest.json: input.width is 16, config.json says 24"]),
        ({"channels": 3, "size": "junk"}, ["manifest.json: input.channels is 1, config.json says 3"]),
        ({"size": None, "channels": None, "resize": "fit", "points": 1024}, []),
    ],
)
def test_a_manifest_with_another_input_than_the_configuration_is_found(
    copy: Path, data: dict[str, Any], finding: list[str]
) -> None:
    put(copy, "config.json", json.dumps({"data": data}).encode())
    assert verify(Bundle.open(copy)).problems == tuple(finding)


@pytest.mark.skipif(devices.offers_cuda(), reason="this ONNX Runtime has CUDA")
def test_a_device_that_is_not_to_be_had_is_no_verdict_on_the_bundle(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeviceError, match="device cuda: "):
        verify(Bundle.open(bundle_path), device="cuda")
    assert main(["verify", str(bundle_path), "--device", "cuda"]) == 1
    said = capsys.readouterr().err
    assert "use --device cpu" in said
    assert "trusted" not in said
