"""Bundles from strangers: refused with the reason, before anything in them is used."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto

from isolatent_export import Bundle, BundleError
from isolatent_export.bundle import file_digest
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
