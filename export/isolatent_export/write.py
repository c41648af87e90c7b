"""Writing a bundle: both graphs, their twin, weights, golden samples, card and manifest, or nothing at all.

Needs torch. The bundle is built beside its destination and moved there only when every engine agrees with torch.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as arrays_as_bytes
from safetensors.torch import save as tensors_as_bytes
from torch import Tensor, nn
from torch.export import ExportedProgram

from isolatent_export import bundle as names
from isolatent_export import parity, speed
from isolatent_export.bundle import Bundle, BundleError, Golden, file_digest
from isolatent_export.card import RECONSTRUCTIONS, card
from isolatent_export.manifest import (
    FileFact,
    ImageInput,
    InputSpec,
    Latent,
    Manifest,
    Objective,
    Precision,
    ReconstructionError,
    Tolerance,
    Training,
)
from isolatent_export.pictures import framing, render, save_grid
from isolatent_export.placing import replacing
from isolatent_export.runtime import OnnxRuntime
from isolatent_export.to_half import HalvedRuntime, halved
from isolatent_export.to_onnx import to_onnx
from isolatent_export.to_program import ProgramRuntime, capture, save_program
from isolatent_export.to_torchscript import TorchScriptRuntime, to_torchscript

_TOOLS = ("isolatent", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")

_TOLERANCES = {
    "image": Tolerance(),
    # Where two neighbours are equally far, engines may choose differently: one such flip moves a mean by 3e-4.
    "point_cloud": Tolerance(mean=1e-3, log_variance=1e-3, reconstruction=1e-3),
}

_HALF = Tolerance(mean=5e-3, log_variance=5e-3, reconstruction=5e-3)
"""Of fp16 bundles: float16 rounds to 11 bits, at every layer."""

_ERRORS: dict[str, ReconstructionError] = {
    "image": "mean squared error per pixel, pixels in 0..1",
    "point_cloud": "Chamfer distance: mean squared distance to the nearest point, both directions summed, "
    "normalised points",
}


@dataclass(frozen=True, kw_only=True)
class Export:
    """What training hands over. The modules are in evaluation mode, on the CPU, pre- and postprocessing inside.

    encoder: input (B, *input.shape), uint8 pixels or float32 points (where it can, of any number) -> mean, log_variance
    (B, d); decoder: latent (B, d) -> pixels (B, H, W, C) in 0..1, or points (B, P', 3).
    golden_inputs: (N, *input.shape) real validation inputs, N at least 1. tolerance: None for the precision's and
    modality's own. precision is that of the ONNX graphs; the twins in PyTorch's formats keep the weights as they are.
    """

    encoder: nn.Module
    decoder: nn.Module
    weights: dict[str, Tensor]
    config: dict[str, Any]
    golden_inputs: NDArray[Any]
    name: str
    version: str
    family: str
    objective: Objective
    input: InputSpec
    latent: Latent
    transforms: tuple[dict[str, Any], ...]
    training: Training
    metrics: dict[str, Any]
    tolerance: Tolerance | None = None
    precision: Precision = "fp32"
    exact: tuple[str, ...] = ()
    """Names of modules inside the encoder that fp16 leaves in float32."""


def write_bundle(export: Export, out: str | os.PathLike[str], *, overwrite: bool = False) -> Bundle:
    """Write the bundle directory `out` and return it, opened.

    Raises BundleError when `out` exists (an old bundle there is replaced only with `overwrite`, anything else never)
    or cannot be written, or when an engine's outputs differ from torch's by more than the tolerance.
    """
    if not len(export.golden_inputs):
        raise BundleError("no golden inputs; give at least one")
    with replacing(out, names.is_bundle, overwrite=overwrite) as work:
        _fill(work, export)
        for file in work.iterdir():
            file.chmod(0o644)
    return Bundle.open(out)


def _fill(work: Path, export: Export) -> None:
    golden = _golden(export)
    two = parity.repeated(golden, 2)  # a batch of 1 would be captured as a constant
    example, latents = torch.from_numpy(two.input[:2]), torch.from_numpy(two.mean[:2])
    as_trained = _capture(export.encoder, export.decoder, example, latents, export.input)
    save_program(as_trained.encoder, work / names.ENCODER_PROGRAM)
    save_program(as_trained.decoder, work / names.DECODER_PROGRAM)
    graphs, halves = as_trained, None
    if export.precision == "fp16":
        modules = halved(export.encoder, export.exact), halved(export.decoder)
        graphs, halves = _capture(*modules, example, latents, export.input), HalvedRuntime(*modules)
    posterior = ["mean", "log_variance"]
    to_onnx(graphs.encoder, work / names.ENCODER, inputs="input", outputs=posterior, points=graphs.points)
    to_onnx(graphs.decoder, work / names.DECODER, inputs="latent", outputs=["reconstruction"])
    to_torchscript(export.encoder, export.decoder, example, latents, work / names.TORCHSCRIPT)
    weights = tensors_as_bytes({name: value.contiguous() for name, value in export.weights.items()})
    (work / names.WEIGHTS).write_bytes(weights)
    (work / names.CONFIG).write_text(json.dumps(export.config, indent=2) + "\n")
    samples = arrays_as_bytes({name: np.ascontiguousarray(value) for name, value in vars(golden).items()})
    (work / names.GOLDEN).write_bytes(samples)
    _draw(golden, export.input, work / RECONSTRUCTIONS)
    manifest = _measured(work, _manifest(export, golden), golden, halves)
    (work / names.CARD).write_text(card(manifest))
    manifest = manifest.model_copy(update={"files": _files(work)})
    (work / names.MANIFEST).write_text(json.dumps(manifest.public(), indent=2) + "\n")


def _measured(work: Path, manifest: Manifest, golden: Golden, halves: HalvedRuntime | None) -> Manifest:
    """`manifest` with parity and speed. Opened like any user would, so that what is measured is what will be loaded."""
    runtime = OnnxRuntime(Bundle(work, manifest))
    rows = parity.measure(runtime, golden, runtime.provider)
    rows += parity.measure(TorchScriptRuntime(work / names.TORCHSCRIPT), golden, "TorchScript")
    programs = ProgramRuntime(work / names.ENCODER_PROGRAM, work / names.DECODER_PROGRAM)
    rows += parity.measure(programs, golden, "torch.export")
    if halves:
        rows += parity.measure(halves, golden, "torch, float16 layers")
    wrong = parity.excess(rows, manifest.tolerance)
    if wrong:
        remedy = "export with --precision fp32" if manifest.precision == "fp16" else "check the model in fp32"
        raise BundleError(f"not exported, outputs differ from torch: {'; '.join(wrong)}; {remedy}")
    return manifest.model_copy(update={"parity": rows, "speed": speed.measure(runtime, golden, runtime.provider)})


@dataclass(frozen=True)
class _Captured:
    """Both networks as programs; `points`: the encoder takes any number of points."""

    encoder: ExportedProgram
    decoder: ExportedProgram
    points: bool


def _capture(encoder: nn.Module, decoder: nn.Module, example: Tensor, latents: Tensor, spec: InputSpec) -> _Captured:
    points = spec.modality == "point_cloud"
    try:
        program = capture(encoder, example, points=points)
    except Exception:  # torch raises many kinds: an architecture may need the number of points that it was made for
        if not points:
            raise
        program, points = capture(encoder, example), False
    return _Captured(program, capture(decoder, latents), points)


@torch.inference_mode()
def _golden(export: Export) -> Golden:
    inputs = torch.from_numpy(export.golden_inputs)
    mean, log_variance = export.encoder(inputs)
    reconstruction = export.decoder(mean)
    return Golden(export.golden_inputs, mean.numpy(), log_variance.numpy(), reconstruction.numpy())


def _draw(golden: Golden, spec: InputSpec, path: Path) -> None:
    inputs, outputs = golden.input[:12], golden.reconstruction[:12]
    if isinstance(spec, ImageInput):
        save_grid([inputs, outputs], path)
        return
    centre, reach = framing(inputs) if spec.normalization == "none" else (0.0, 1.0)
    save_grid([render(part, size=128, centre=centre, reach=reach) for part in (inputs, outputs)], path)


def _manifest(export: Export, golden: Golden) -> Manifest:
    return Manifest(
        name=export.name,
        version=export.version,
        created=datetime.now(UTC).replace(microsecond=0),
        modality=export.input.modality,
        family=export.family,
        objective=export.objective,
        input=export.input,
        latent=export.latent,
        reconstruction_shape=golden.reconstruction.shape[1:],
        reconstruction_error=_ERRORS[export.input.modality],
        transforms=export.transforms,
        training=export.training,
        metrics=export.metrics,
        tools={"python": platform.python_version()} | {tool: version(tool) for tool in _TOOLS},
        precision=export.precision,
        tolerance=export.tolerance or (_HALF if export.precision == "fp16" else _TOLERANCES[export.input.modality]),
        parity=(),
        files={},
    )


def _files(work: Path) -> dict[str, FileFact]:
    return {file.name: FileFact(sha256=file_digest(file), bytes=file.stat().st_size) for file in sorted(work.iterdir())}
