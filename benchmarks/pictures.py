"""What the serving benchmarks send."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pictures(shape: tuple[int, ...], count: int) -> NDArray[np.uint8]:
    """Smooth random pictures (count, H, W, C): their PNG files are about as large as those of photographs."""
    height, width, channels = shape
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 6, 6, 3), np.uint8)
    mode = "L" if channels == 1 else "RGB"
    fine = [Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC).convert(mode) for each in coarse]
    return np.stack([np.asarray(each) for each in fine]).reshape(count, height, width, channels)


def png(image: NDArray[np.uint8]) -> bytes:
    """One picture (H, W, C) as a file."""
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    return stream.getvalue()


def npy(images: NDArray[np.uint8]) -> bytes:
    """Many pictures (N, H, W, C) as one body."""
    stream = io.BytesIO()
    np.save(stream, images)
    return stream.getvalue()
