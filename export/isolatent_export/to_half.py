"""A network in half precision that still takes and gives float32: the modules that an fp16 bundle's graphs are made of.

Only layers with weights change their type, each behind a cast of its own, so that whatever lies between them (padding,
neighbours of points, sums) stays in the type of its inputs: geometry that starts from float32 points is float32's.
Needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]

_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.GroupNorm,
    nn.LayerNorm,
)


def halved(module: nn.Module, exact: Iterable[str] = ()) -> nn.Module:
    """A copy of `module` whose layers compute in float16; its outputs are float32.

    `exact` names modules inside it that stay as they are, with float32 inputs: heads of log-variances, and what
    decides which points are neighbours. Raises ValueError for a name that `module` does not have.
    """
    copy, kept = deepcopy(module), set(exact)
    if unknown := kept - dict(copy.named_modules()).keys():
        raise ValueError(f"{type(module).__name__} has no module {min(unknown)!r}")
    _halve(copy, "", kept)
    return _Float32(copy).eval()


def _halve(module: nn.Module, path: str, exact: set[str]) -> None:
    for name, child in module.named_children():
        where = f"{path}{name}"
        if where in exact:
            setattr(module, name, _Cast(child, torch.float32))
        elif isinstance(child, _LAYERS):
            setattr(module, name, _Cast(child.half(), torch.float16))
        else:
            _halve(child, f"{where}.", exact)


class _Cast(nn.Module):
    """A module behind a cast of its input."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = inner
        self.dtype = dtype

    def forward(self, inputs: Tensor) -> Any:
        return self.inner(inputs.to(self.dtype))


class HalvedRuntime:
    """Encoder and decoder with halved layers on the CPU, with the interface of the ONNX runtime.

    It really computes in half precision, as a GPU does. ONNX Runtime's CPU provider computes the same graphs in
    float32, and shows neither the rounding of activations nor their overflow.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        self._encoder = encoder
        self._decoder = decoder

    @torch.inference_mode()
    def encode(self, inputs: Array) -> tuple[Array, Array]:
        """Items (N, ...) -> mean and log-variance (N, d)."""
        mean, log_variance = self._encoder(torch.from_numpy(inputs))
        return mean.numpy(), log_variance.numpy()

    @torch.inference_mode()
    def decode(self, latents: Array) -> Array:
        """Latents (N, d) -> reconstructions (N, ...)."""
        return np.asarray(self._decoder(torch.from_numpy(latents)).numpy())


class _Float32(nn.Module):
    """A module whose outputs are float32."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Any:
        outputs = self.inner(inputs)
        return outputs.float() if isinstance(outputs, Tensor) else tuple(output.float() for output in outputs)
