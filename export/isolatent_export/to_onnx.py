"""A torch module to one ONNX file with a dynamic batch, and for clouds a dynamic number of points. Needs torch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OPSET = 20  # 17 writes a file that ONNX Runtime refuses; 21 and later gain nothing on a CPU
MAX_BATCH = 65_536


def to_onnx(
    module: nn.Module, example: Tensor, path: Path, *, inputs: str, outputs: list[str], points: bool = False
) -> None:
    """Write `module` (one input, batch first) to `path`. `example` needs a batch of 2 or more to keep it dynamic.

    With `points` the second axis counts points and is dynamic too; the module decides how few are enough.
    """
    axes: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}
    if points:
        axes[1] = "points"  # a name without bounds: the exporter finds them, such as the neighbours a graph needs
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter, none of them ours to mend
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=(axes,),
                opset_version=OPSET,
                input_names=[inputs],
                output_names=outputs,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(level)
    assert program is not None
    _free_names(program.model.graph, outputs)
    program.save(path, external_data=False)  # one file, also for large models


def _free_names(graph: Any, outputs: list[str]) -> None:
    """Rename inner values that the exporter called like an output: a node of torch.mean is called `mean`."""
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name in outputs and all(value is not output for output in graph.outputs):
                value.name = f"inner_{value.name}"
