"""The programs of torch.export: the same bits as torch, in any batch, and nothing about the machine that made them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from isolatent.cli import main
from isolatent_export.bundle import Bundle
from isolatent_export.manifest import ImageInput, InputSpec, PointCloudInput
from isolatent_export.to_program import capture, save_program
from isolatent_export.verify import verify
from isolatent_train.config import LikelihoodSection, ModelSection
from isolatent_train.exported import ExportedDecoder, ExportedEncoder
from isolatent_train.likelihoods import build_likelihood
from isolatent_train.models import build_model

MODELS: dict[str, tuple[InputSpec, ModelSection, LikelihoodSection]] = {
    "conv": (
        ImageInput(height=12, width=20, channels=3),
        ModelSection(latent=6, channels=(8, 16)),
        LikelihoodSection(kind="logistic"),
    ),
    "dgcnn": (
        PointCloudInput(points=40),
        ModelSection(net="dgcnn", latent=6, channels=(8, 8, 16), neighbours=8, grid=5, folding=16),
        LikelihoodSection(kind="chamfer"),
    ),
}


@pytest.mark.parametrize("net", MODELS)
def test_a_program_loaded_again_computes_the_same_bits_in_any_batch(tmp_path: Path, net: str) -> None:
    spec, section, likelihood_section = MODELS[net]
    likelihood = build_likelihood(likelihood_section)
    model = build_model(section, spec, likelihood).eval()
    cloud = isinstance(spec, PointCloudInput)
    networks: dict[str, nn.Module] = {
        "encoder": ExportedEncoder(model).eval(),
        "decoder": ExportedDecoder(model, likelihood).eval(),
    }

    def batch(size: int) -> dict[str, torch.Tensor]:
        pixels = torch.randint(0, 256, (size, *spec.shape), dtype=torch.uint8)
        inputs = torch.randn(size, *spec.shape) if cloud else pixels
        return {"encoder": inputs, "decoder": torch.randn(size, 6)}

    for name, network in networks.items():
        save_program(capture(network, batch(2)[name], points=cloud and name == "encoder"), tmp_path / f"{name}.pt2")
        loaded = torch.export.load(tmp_path / f"{name}.pt2").module()
        for size in (1, 2, 7):
            items = batch(size)[name]
            with torch.inference_mode():
                got, expected = loaded(items), network(items)
            pairs = zip(got, expected, strict=True) if name == "encoder" else [(got, expected)]
            assert all(torch.equal(left, right) for left, right in pairs)


def test_a_bundle_without_programs_is_still_a_bundle_but_says_so(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    files = {name: fact for name, fact in bundle.manifest.files.items() if not name.endswith(".pt2")}
    older = Bundle(bundle.path, bundle.manifest.model_copy(update={"files": files}))
    assert verify(older).problems[0].startswith("decoder.pt2: not listed")
    assert {"encoder.pt2", "decoder.pt2"} <= bundle.manifest.files.keys()


def test_verify_runs_on_pytorch_what_it_is_told_to(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx, script, program = (f"{engine}, batch 7" for engine in ("CPUExecutionProvider", "TorchScript", "torch.export"))
    said = {}
    for option in ("--device=cpu", "--torchscript", "--pt2", "--all-engines"):
        assert main(["verify", str(bundle_path), option]) == 0
        out = capsys.readouterr().out
        said[option] = [engine for engine in (onnx, script, program) if engine in out]
    assert said == {
        "--device=cpu": [onnx],
        "--torchscript": [onnx, script],
        "--pt2": [onnx, program],
        "--all-engines": [onnx, script, program],
    }


@pytest.mark.parametrize("fixture", ["bundle_path", "cloud_bundle_path"])
def test_no_file_tells_the_folders_of_the_machine_that_made_it(request: pytest.FixtureRequest, fixture: str) -> None:
    checkout = str(Path(__file__).parents[2]).encode()
    for file in Path(request.getfixturevalue(fixture)).iterdir():
        contents = [file.read_bytes()]
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        assert not any(checkout in content for content in contents), file.name
