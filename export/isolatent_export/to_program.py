"""A torch module captured by torch.export: what the ONNX file is made of, and, saved, its PyTorch-native twin.

Needs torch. Loading such a file from a stranger is not safe: torch.export.load unpickles what it finds in it.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

Array = NDArray[Any]

MAX_BATCH = 65_536


def capture(module: nn.Module, example: Tensor, *, points: bool = False) -> ExportedProgram:
    """The program of `module` (one input, batch first). `example` needs a batch of 2 or more to keep it dynamic.

    With `points` the second axis counts points and is dynamic too; raises what torch raises where the module needs
    the number that it was made for.
    """
    axes: dict[int, Any] = {0: Dim("batch", min=1, max=MAX_BATCH)}
    if points:
        axes[1] = Dim.DYNAMIC  # without bounds: torch finds them, such as the neighbours that a graph needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch, none of them ours to mend
        program = torch.export.export(module.eval(), (example,), dynamic_shapes=(axes,), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the folders of this machine are nobody's business
    return program


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write `program` to `path`, *.pt2. Loaded again it computes the same bits."""
    file = io.BytesIO()  # torch's own writer of files aborts the process when the disk is full
    torch.export.save(program, file)
    path.write_bytes(file.getvalue())


class ProgramRuntime:
    """Two saved programs on the CPU, with the interface of the ONNX runtime."""

    def __init__(self, encoder: Path, decoder: Path) -> None:
        self._encoder = torch.export.load(encoder).module()
        self._decoder = torch.export.load(decoder).module()

    def encode(self, inputs: Array) -> tuple[Array, Array]:
        """Items (N, ...) -> mean and log-variance (N, d)."""
        with torch.inference_mode():
            mean, log_variance = self._encoder(torch.from_numpy(inputs))
        return mean.numpy(), log_variance.numpy()

    def decode(self, latents: Array) -> Array:
        """Latents (N, d) -> reconstructions (N, ...)."""
        with torch.inference_mode():
            return np.asarray(self._decoder(torch.from_numpy(latents)).numpy())
