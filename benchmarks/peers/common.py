"""What every peer does with a request: bytes to pixels, pixels through the encoder, mean and variance back as float32.

Nothing here knows a server. The model, its threads and the most pictures per run come from the environment.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
Encode = Callable[[Array], tuple[Array, Array]]
"""Pixels (N, H, W, C) uint8 -> mean and log-variance, each (N, d) float32."""

CHUNK = 64
"""Pictures per run of the model: more are not faster, and take their memory."""


def decode(body: bytes | bytearray) -> Array:
    """A PNG file, or npy of (N, H, W, C) -> pixels (N, H, W, C) uint8."""
    if body.startswith(b"\x93NUMPY"):
        array: Array = np.load(io.BytesIO(body), allow_pickle=False)
        return array
    pixels = np.asarray(Image.open(io.BytesIO(body)))
    return pixels.reshape(1, *pixels.shape[:2], -1)


def posteriors(encode: Encode, requests: Sequence[Array]) -> list[bytes]:
    """Pixels of many requests -> for each its (N, 2 d) float32 means and variances, little-endian."""
    pixels = requests[0] if len(requests) == 1 else np.concatenate(requests)
    runs = [encode(pixels[start : start + CHUNK]) for start in range(0, len(pixels), CHUNK)]
    rows = np.concatenate([np.concatenate([mean, np.exp(log_variance)], axis=1) for mean, log_variance in runs])
    ends = np.cumsum([len(each) for each in requests])
    return [part.tobytes() for part in np.split(rows, ends[:-1])]


def onnx_encoder() -> Encode:
    """The encoder in the file that MODEL names on THREADS threads, warmed at the sizes that batches have."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["THREADS"])
    options.inter_op_num_threads = 1
    # Several processes share the cores: threads that spin while they wait would take them from each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def encode(pixels: Array) -> tuple[Array, Array]:
        mean, log_variance = session.run(["mean", "log_variance"], {"input": pixels})
        return mean, log_variance

    shape = session.get_inputs()[0].shape[1:]
    for count in (1, 2, 4, 8, 16, 32, CHUNK):
        encode(np.zeros((count, *shape), np.uint8))
    return encode
