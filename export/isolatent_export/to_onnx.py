"""A captured torch program to one ONNX file, its batch, and for clouds its number of points, dynamic. Needs torch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

OPSET = 20  # 17 writes a file that ONNX Runtime refuses; 21 and later gain nothing on a CPU


def to_onnx(program: ExportedProgram, path: Path, *, inputs: str, outputs: list[str], points: bool = False) -> None:
    """Write `program` (one input, batch first; with `points` its second axis is dynamic too) to `path`."""
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter, none of them ours to mend
            converted = torch.onnx.export(
                program,
                dynamo=True,
                dynamic_shapes=({0: "batch", 1: "points"} if points else {0: "batch"},),  # their names in the file
                opset_version=OPSET,
                input_names=[inputs],
                output_names=outputs,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(level)
    assert converted is not None
    _free_names(converted.model.graph, outputs)
    converted.save(path, external_data=False)  # one file, also for large models


def _free_names(graph: Any, outputs: list[str]) -> None:
    """Rename inner values that the exporter called like an output: a node of torch.mean is called `mean`."""
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name in outputs and all(value is not output for output in graph.outputs):
                value.name = f"inner_{value.name}"
