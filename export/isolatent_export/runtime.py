"""A bundle's encoder and decoder on ONNX Runtime, on a device that is chosen and named, never guessed."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from isolatent_export.bundle import DECODER, ENCODER, Bundle, BundleError

Device = Literal["auto", "cpu", "cuda"]
Array = NDArray[Any]

_PROVIDERS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "cpu": [("CPUExecutionProvider", {})],
    # HEURISTIC: the default searches for a convolution algorithm again at every new batch size.
    "cuda": [("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"}), ("CPUExecutionProvider", {})],
}


class OnnxRuntime:
    """The two sessions of a bundle. `provider` is the execution provider that really runs.

    Calls are thread-safe; one call uses `threads` cores (0: as many as this process may use).
    """

    def __init__(self, bundle: Bundle, *, device: Device = "cpu", threads: int = 0) -> None:
        """Load both graphs. Raises BundleError when a graph does not load or `device` is not to be had."""
        wanted = _choose(device)
        self._encoder = _session(bundle, ENCODER, wanted, threads)
        self._decoder = _session(bundle, DECODER, wanted, threads)
        self.provider: str = self._encoder.get_providers()[0]
        if device == "cuda" and self.provider != "CUDAExecutionProvider":
            raise BundleError(
                "device cuda: ONNX Runtime fell back to the CPU; install onnxruntime-gpu (and not onnxruntime) with "
                "its CUDA and cuDNN libraries, or use --device cpu"
            )

    def encode(self, inputs: Array) -> tuple[Array, Array]:
        """Items (N, ...) as in the input spec -> mean and log-variance of q(z|x), each (N, d) float32."""
        mean, log_variance = self._encoder.run(["mean", "log_variance"], {"input": inputs})
        return mean, log_variance

    def decode(self, latents: Array) -> Array:
        """Latents (N, d) float32 -> reconstructions (N, ...): pixels in 0..1, float32."""
        (reconstruction,) = self._decoder.run(["reconstruction"], {"latent": latents})
        return np.asarray(reconstruction)


def _choose(device: Device) -> str:
    if device != "auto":
        return device
    return "cuda" if "CUDAExecutionProvider" in ort.get_available_providers() else "cpu"


def _session(bundle: Bundle, name: str, device: str, threads: int) -> Any:
    options = ort.SessionOptions()
    # Set explicitly: the default counts the machine's cores, not those this process may use.
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Worker threads sleep between requests instead of burning a core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = bundle.file(name)
    try:
        return ort.InferenceSession(path.read_bytes(), options, providers=_PROVIDERS[device])
    except Exception as error:  # ONNX Runtime has an exception class per status code, with no common base
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{path}: ONNX Runtime cannot load it ({reason}); export the bundle again") from None
