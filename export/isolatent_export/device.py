"""Where graphs run: what was asked for, what this ONNX Runtime can do, and the sentence that says why it is so.

Whether CUDA works shows only once a session exists: the package lists it on machines without a GPU, too.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import onnxruntime as ort

from isolatent_export.bundle import BundleError

Device = Literal["auto", "cpu", "cuda"]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

_PACKAGES = ("onnxruntime", "onnxruntime-gpu")


class DeviceError(BundleError):
    """A device that is not to be had here: this says nothing about the bundle."""


@dataclass(frozen=True, kw_only=True)
class CudaOptions:
    """How a GPU is used."""

    graphs: bool = False
    """Record each batch size once as a CUDA graph and replay it."""
    memory_bytes: int = 0
    """The most that the arena of one session may take of the GPU's memory; 0: all that is free."""

    def provider(self, *, graphs: bool) -> dict[str, str]:
        """Options of the execution provider. `graphs`: whether this session may record, if `self.graphs` is set."""
        options = {
            "cudnn_conv_algo_search": "HEURISTIC",  # the default searches again at every new batch size
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": "0",  # golden outputs are float32's: TF32 rounds to 10 bits
            "enable_cuda_graph": str(int(self.graphs and graphs)),
        }
        return options | ({"gpu_mem_limit": str(self.memory_bytes)} if self.memory_bytes else {})


def offers_cuda() -> bool:
    """Whether this ONNX Runtime was built with CUDA; whether it starts is another question."""
    return CUDA in ort.get_available_providers()


def installed() -> str:
    """The packages of ONNX Runtime with their versions: one of the two, unless something is wrong."""
    return " and ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name))) or "no package known"


def conflict() -> str | None:
    """What is wrong when both packages of ONNX Runtime are installed, and what to do; None when all is well."""
    if not all(map(_version, _PACKAGES)):
        return None
    return (
        f"{installed()} are both installed and overwrite each other's files; run: "
        f"pip uninstall -y {' '.join(_PACKAGES)} and then install the one that you want"
    )


@cache
def preload() -> tuple[str, ...]:
    """Load the CUDA libraries that pip has installed, where ONNX Runtime can; returns what it says cannot be loaded."""
    said: list[str] = []
    if offers_cuda() and hasattr(ort, "preload_dlls"):
        # It prints, and standard output is the caller's: the module gets a print of its own.
        vars(ort)["print"] = lambda *words, **_: said.append(" ".join(map(str, words)))
        with contextlib.suppress(RuntimeError, OSError):
            ort.preload_dlls()
    return tuple(said)


def explain(device: Device, provider: str, partly: tuple[str, ...]) -> str:
    """One sentence: why `provider` runs when `device` was asked for; `partly` names graphs with nodes on the CPU."""
    if device != "auto":
        reason = f"asked for: {device}"
    else:
        reason = f"auto: {CUDA} starts ({installed()})" if provider == CUDA else f"auto: {_why_no_cuda()}"
    return f"{reason}; on the CPU in part: {', '.join(partly)}" if partly else reason


def refusal() -> str:
    """Why `cuda` cannot be had, and the remedy."""
    if found := conflict():
        return f"device cuda: {found}"
    return (
        f"device cuda: {_why_no_cuda()}; install onnxruntime-gpu (and not onnxruntime) with its CUDA and cuDNN "
        "libraries, or use --device cpu; isolatent doctor says more"
    )


def _why_no_cuda() -> str:
    if not offers_cuda():
        return f"{CUDA} is not in this ONNX Runtime ({installed()})"
    return f"{CUDA} does not start ({'; '.join([installed(), *preload()[:1]])})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
