"""Grids of images as PNG files: reconstructions, samples and traversals for cards and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def save_grid(rows: list[NDArray[Any]], path: Path, *, scale: int = 4, gap: int = 2) -> None:
    """Write rows of images to `path`. Each row is (N, H, W, C), uint8 or float in 0..1; pixels grow `scale` times."""
    height, width, channels = rows[0].shape[1:]
    columns = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(to_pixels(row)):
            top, left = gap + y * (height + gap), gap + x * (width + gap)
            sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(path)


def to_pixels(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Images as uint8: floats in 0..1 are scaled and rounded, uint8 stays."""
    if images.dtype == np.uint8:
        return images
    return np.asarray(np.clip(images, 0, 1) * 255 + 0.5, np.uint8)
