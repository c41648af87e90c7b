"""A torch module to one ONNX file with a dynamic batch. Needs torch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

OPSET = 20  # 17 writes a file that ONNX Runtime refuses; 21 and later gain nothing on a CPU
MAX_BATCH = 65_536


def to_onnx(module: nn.Module, example: Tensor, path: Path, *, inputs: str, outputs: list[str]) -> None:
    """Write `module` (one input, batch first) to `path`. `example` needs a batch of 2 or more to keep it dynamic."""
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter, none of them ours to mend
            torch.onnx.export(
                module.eval(),
                (example,),
                path,
                dynamo=True,
                dynamic_shapes=({0: batch},),
                opset_version=OPSET,
                external_data=False,  # one file, also for large models
                input_names=[inputs],
                output_names=outputs,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(level)
