"""One reconstruction as the content of a file: 8-bit PNG of a picture, binary PLY of a cloud, npy of either."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]


def npy(array: Array) -> bytes:
    """Any array as float32, bit-exact."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array, "<f4"), allow_pickle=False)
    return file.getvalue()


def png(picture: Array) -> bytes:
    """Pixels (H, W, C) in 0..1, rounded to 8 bits."""
    pixels = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def ply(cloud: Array) -> bytes:
    """Points (P, 3) as binary little-endian PLY of float32 x, y, z."""
    points = np.ascontiguousarray(cloud, "<f4")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property float {axis}" for axis in "xyz"] + ["end_header", ""]
    return b"".join(["\n".join(header).encode(), points.tobytes()])
