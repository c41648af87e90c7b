"""fp16 bundles: half the weights, the same interface, geometry and log-variances in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.manifest import ImageInput, PointCloudInput, Tolerance
from isolatent_export.to_half import halved
from isolatent_export.verify import load_verified
from isolatent_train.config import LikelihoodSection, ModelSection
from isolatent_train.likelihoods import build_likelihood
from isolatent_train.models import EXACT, build_model
from support import export_untrained, export_untrained_cloud

HALF = Tolerance(mean=5e-3, log_variance=5e-3, reconstruction=5e-3)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The images of `tiny-colour` in half precision."""
    spec = ImageInput(height=12, width=20, channels=3)
    out = tmp_path_factory.mktemp("half") / "half"
    return export_untrained(out, spec, latent=6, precision="fp16", exact=("encoder.head",))


def weights(path: Path) -> dict[str, int]:
    """Numbers of weights in an ONNX file by their type."""
    found: dict[str, int] = {}
    for each in onnx.load(path).graph.initializer:
        name = TensorProto.DataType.Name(each.data_type)
        found[name] = found.get(name, 0) + int(np.prod(each.dims))
    return found


def test_inputs_and_outputs_keep_their_types(half: Bundle) -> None:
    encoder, decoder = (onnx.load(half.file(name)).graph for name in ("encoder.onnx", "decoder.onnx"))
    types = [each.type.tensor_type.elem_type for each in (*encoder.input, *encoder.output)]
    assert types == [TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT]
    assert {each.type.tensor_type.elem_type for each in (*decoder.input, *decoder.output)} == {TensorProto.FLOAT}


def test_weights_are_half_but_for_the_head(half: Bundle) -> None:
    encoder = weights(half.file("encoder.onnx"))
    head = 16 * 3 * 5 * 12 + 12  # channels, height and width of the features, means and log-variances; biases
    assert head <= encoder["FLOAT"] <= head + 10
    assert encoder["FLOAT16"] > 16 * 8 * 16  # the second convolution and more
    assert weights(half.file("decoder.onnx")).get("FLOAT", 0) <= 10


def test_the_manifest_says_the_precision_and_allows_for_it(half: Bundle) -> None:
    assert (half.manifest.precision, half.manifest.tolerance) == ("fp16", HALF)
    ours = [row for row in half.manifest.parity if row.engine == "CPUExecutionProvider"]
    assert 1e-5 < max(row.mean for row in ours) <= 5e-3
    assert 1e-5 < max(row.mean for row in half.manifest.parity if row.engine == "torch, float16 layers") <= 5e-3
    twins = [row for row in half.manifest.parity if row.engine in ("TorchScript", "torch.export")]
    assert len(twins) == 6
    assert max(row.mean for row in twins) <= 1e-5
    assert "float16 weights" in (half.path / "README.md").read_text()
    load_verified(half)


def test_the_manifest_says_how_fast_which_machine_was(half: Bundle) -> None:
    speed = half.manifest.speed
    assert speed is not None
    assert (speed.engine, [row.batch for row in speed.rows]) == ("CPUExecutionProvider", [1, 64])
    assert min(min(row.encode_ms, row.decode_ms) for row in speed.rows) > 0
    assert speed.cores >= 1
    assert speed.processor in (half.path / "README.md").read_text()


def test_clouds_in_half_precision_take_any_number_of_points(tmp_path: Path) -> None:
    bundle = export_untrained_cloud(tmp_path / "half", precision="fp16", exact=("head",))
    runtime, golden = load_verified(bundle), bundle.golden()
    mean, log_variance = runtime.encode(golden.input[:, :30])
    assert mean.shape == log_variance.shape == (16, 8)
    assert mean.dtype == np.float32


def test_what_is_too_large_for_half_precision_is_refused_with_the_remedy(tmp_path: Path) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(12, 4)
            nn.init.constant_(self.head.weight, 400.0)

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.head(pixels.flatten(1).float())
            return found, found

    spec = ImageInput(height=2, width=2, channels=3)
    with pytest.raises(
        BundleError, match=r"differ from torch.*float16 layers.*differs by inf.*; export with --precision fp32"
    ):
        export_untrained(tmp_path / "large", spec, latent=4, encoder=Large().eval(), precision="fp16")
    assert not (tmp_path / "large").exists()


def test_graphs_of_features_find_the_same_neighbours_in_half_precision() -> None:
    section = ModelSection(net="dgcnn", latent=6, channels=(16, 16, 32), neighbours=8, grid=5, folding=16)
    spec, clouds = PointCloudInput(points=100), torch.randn(8, 100, 3)
    model = build_model(section, spec, build_likelihood(LikelihoodSection(kind="chamfer"))).eval()
    names = [name for name, module in model.encoder.named_modules() if isinstance(module, EXACT)]
    with torch.inference_mode():
        pairs = zip(halved(model.encoder, names)(clouds), model.encoder(clouds), strict=True)
    assert len(names) == 3  # two layers of edges, and the head
    assert all(0 < float((half - full).abs().max()) < 5e-3 for half, full in pairs)


def test_a_module_kept_exact_must_exist() -> None:
    with pytest.raises(ValueError, match="Sequential has no module 'head'"):
        halved(nn.Sequential(nn.Linear(2, 2)), ["head"])
