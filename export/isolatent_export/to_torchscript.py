"""Encoder and decoder as one TorchScript file with the methods `encode` and `decode`. Needs torch."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]


class _Twin(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(inputs)
        return mean, log_variance

    def decode(self, latents: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(latents)
        return reconstruction


def to_torchscript(encoder: nn.Module, decoder: nn.Module, inputs: Tensor, latents: Tensor, path: Path) -> None:
    """Trace both modules on the examples (batch first) and write them to `path`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tracing is deprecated, and what TorchServe loads
        twin = torch.jit.trace_module(_Twin(encoder, decoder).eval(), {"encode": inputs, "decode": latents})
        traced = io.BytesIO()  # torch's own writer of files aborts the process when the disk is full
        torch.jit.save(twin, traced)
    path.write_bytes(_without_sources(traced))


def _without_sources(traced: io.BytesIO) -> bytes:
    """A copy of an archive, but for where on this machine each line of code was written: torch loads it without."""
    copy = io.BytesIO()
    with zipfile.ZipFile(traced) as source, zipfile.ZipFile(copy, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry))
    return copy.getvalue()


class TorchScriptRuntime:
    """model.ts on the CPU, with the interface of the ONNX runtime."""

    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._module = torch.jit.load(str(path), map_location="cpu").eval()

    def encode(self, inputs: Array) -> tuple[Array, Array]:
        """Items (N, ...) -> mean and log-variance (N, d)."""
        with torch.inference_mode():
            mean, log_variance = self._module.encode(torch.from_numpy(inputs))
        return mean.numpy(), log_variance.numpy()

    def decode(self, latents: Array) -> Array:
        """Latents (N, d) -> reconstructions (N, ...)."""
        with torch.inference_mode():
            return np.asarray(self._module.decode(torch.from_numpy(latents)).numpy())
