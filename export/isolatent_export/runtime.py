"""A bundle's encoder and decoder on ONNX Runtime, on a device that is chosen and named, never guessed."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from isolatent._machine import cores
from isolatent_export import device as devices
from isolatent_export.bundle import DECODER, ENCODER, INPUT_DTYPES, Bundle, BundleError
from isolatent_export.device import CPU, CUDA, CudaOptions, Device, DeviceError
from isolatent_export.graphs import Bound, Graph, Plain, Shapes
from isolatent_export.spread import Spread, piece

__all__ = ["BUCKETS", "CudaOptions", "Device", "OnnxRuntime"]

Array = NDArray[Any]

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes that are warmed, and, where a device wants few sizes, the only ones that run."""

log = logging.getLogger("isolatent_export")


class OnnxRuntime:
    """The two graphs of a bundle. `provider` is the execution provider that really runs, `reason` a sentence why.

    `buckets` are the batch sizes that really run: empty on a CPU, which runs every size as it comes.
    Calls are thread-safe; one call uses `threads` cores (0: as many as this process may use).
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "cpu",
        threads: int = 0,
        buckets: tuple[int, ...] | None = None,
        cuda: CudaOptions = CudaOptions(),
    ) -> None:
        """Load both graphs; `buckets` other than the device's own are for measurements and tests.

        Raises BundleError when a graph does not load, and DeviceError, which is one, when `device` is not to be had.
        """
        if found := devices.conflict():
            log.warning("%s", found)
        manifest = bundle.manifest
        self._threads = threads or cores()
        encoder, decoder = _load(bundle, device, self._threads, cuda)
        self.provider: str = encoder.session.get_providers()[0]
        partly = tuple(graph.name for graph in (encoder, decoder) if not graph.whole)
        self.reason = devices.explain(device, self.provider, partly)
        self.buckets = (BUCKETS if self.provider == CUDA else ()) if buckets is None else buckets
        self._record = cuda.graphs and self.provider == CUDA
        self._example = np.zeros((1, *manifest.input.shape), INPUT_DTYPES[manifest.modality])
        latent = (manifest.latent.size,)
        posterior: Shapes = {"mean": latent, "log_variance": latent}
        reconstruction: Shapes = {"reconstruction": manifest.reconstruction_shape}
        self.sizes = {1}
        """Batch sizes for each way in which these graphs compute: what holds for them holds for all."""
        self._encoder = self._graph(encoder, self._example, posterior)
        self._decoder = self._graph(decoder, np.zeros((1, *latent), np.float32), reconstruction)

    def encode(self, inputs: Array) -> tuple[Array, Array]:
        """Items (N, ...) as in the input spec -> mean and log-variance of q(z|x), each (N, d) float32."""
        mean, log_variance = self._encoder.run(inputs)
        return mean, log_variance

    def decode(self, latents: Array) -> Array:
        """Latents (N, d) float32 -> reconstructions (N, ...): pixels in 0..1, float32."""
        (reconstruction,) = self._decoder.run(latents)
        return np.asarray(reconstruction)

    def warm(self, item: Array) -> None:
        """Run `item` (1, ...) at every size of BUCKETS, the largest first: later runs find their memory allocated."""
        for size in reversed(BUCKETS):
            mean, _ = self.encode(np.repeat(item, size, axis=0))
            self.decode(mean)

    def prove(self) -> None:
        """Raise what ONNX Runtime raises when it cannot even run zeros: the fault is its own, not an input's."""
        for size in self.sizes:
            mean, _ = self.encode(np.repeat(self._example, size, axis=0))
            self.decode(mean)

    def _graph(self, loaded: _Loaded, item: Array, outputs: Shapes) -> Graph:
        if self.buckets:
            return Bound(loaded.session, item.shape[1:], outputs, self.buckets, record=self._record and loaded.whole)
        whole = Plain(loaded.session, outputs)
        if loaded.one is None:
            return whole
        one = Plain(loaded.one, outputs)
        items = piece(one, item)
        if items * self._threads > BUCKETS[-1]:
            return whole
        self.sizes.add(items * self._threads)
        return Spread(one, whole, self._threads, items)


@dataclass(frozen=True)
class _Loaded:
    """The session of one of the bundle's graphs; `whole`: all of it runs on the device."""

    name: str
    session: Any
    whole: bool = True
    one: Any = None
    """Another session, of one thread, where `session` has several threads of a processor."""


def _load(bundle: Bundle, device: Device, threads: int, cuda: CudaOptions) -> list[_Loaded]:
    """Encoder and decoder, on the same device. Raises BundleError."""
    names = (ENCODER, DECODER)
    if device == "cuda" or (device == "auto" and devices.offers_cuda()):
        try:
            return [_on_cuda(bundle, name, threads, cuda) for name in names]
        except _NoCuda as error:
            if device == "cuda":
                raise DeviceError(str(error)) from None
    return [_on_cpu(bundle, name, threads) for name in names]


class _NoCuda(Exception):  # noqa: N818 - not an error when any device will do
    """CUDA does not start here."""


def _on_cpu(bundle: Bundle, name: str, threads: int) -> _Loaded:
    session = _session(bundle, name, _options(threads), [(CPU, {})])
    return _Loaded(name, session, one=_session(bundle, name, _options(1), [(CPU, {})]) if threads > 1 else None)


def _on_cuda(bundle: Bundle, name: str, threads: int, cuda: CudaOptions) -> _Loaded:
    """A session on CUDA, all of it where that can be: nodes that compute shapes may have to stay on the CPU.

    Raises _NoCuda when CUDA does not start: ONNX Runtime itself would go on, on the CPU.
    """
    if not devices.offers_cuda():
        raise _NoCuda(devices.refusal())
    devices.preload()
    strict = _options(threads)
    strict.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with contextlib.suppress(BundleError):  # CUDA does not start, or a node cannot run there: the next session tells
        return _Loaded(name, _session(bundle, name, strict, [(CUDA, cuda.provider(graphs=True))]))
    relaxed = [(CUDA, cuda.provider(graphs=False)), (CPU, {})]
    session = _session(bundle, name, _options(threads), relaxed)
    if session.get_providers()[0] != CUDA:
        raise _NoCuda(devices.refusal())
    return _Loaded(name, session, whole=False)


def _session(bundle: Bundle, name: str, options: ort.SessionOptions, providers: list[Any]) -> Any:
    path = bundle.file(name)
    try:
        return ort.InferenceSession(path.read_bytes(), options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime has an exception class per status code, with no common base
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{path}: ONNX Runtime cannot load it ({reason}); export the bundle again") from None


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    # Set explicitly: the default counts the machine's cores, not those this process may use.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Worker threads sleep between requests instead of burning a core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
