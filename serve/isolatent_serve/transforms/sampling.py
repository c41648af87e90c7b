"""Bilinear sampling of images at places between pixels, as torch's grid_sample with align_corners=False."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Padding = Literal["zeros", "edge", "reflect"]


def resample(images: Array, linear: Array, offset: Array, padding: Padding) -> Array:
    """Images (N, H, W, C) whose pixel at p shows what is at linear @ p + offset, (2, 2) and (2,); p = (x, y) in -1..1.

    -1 and 1 are the outer edges of the first and last pixel.
    """
    height, width = images.shape[1:3]
    x, y = np.meshgrid(_centres(width), _centres(height))  # (H, W) each
    source = np.einsum("ij,jhw->ihw", linear, np.stack([x, y])) + np.reshape(offset, (2, 1, 1))
    columns, rows = ((source[0] + 1) * width - 1) / 2, ((source[1] + 1) * height - 1) / 2
    return _sample(images, _inside(columns, width, padding), _inside(rows, height, padding))


def _centres(count: int) -> Array:
    return (2 * np.arange(count) + 1) / count - 1


def _inside(places: Array, count: int, padding: Padding) -> Array:
    """Places in pixels, those outside 0..count - 1 brought in as `padding` says."""
    if padding == "zeros":
        return places
    if padding == "reflect":  # at the outer edges of the outer pixels
        within = np.mod(places + 0.5, 2 * count)
        places = np.minimum(within, 2 * count - within) - 0.5
    return places.clip(0, count - 1)


def _sample(images: Array, columns: Array, rows: Array) -> Array:
    """Images (N, H, W, C) at `columns` and `rows` (H, W) in pixels; beyond the frame is zero."""
    height, width = images.shape[1:3]
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    sampled = np.zeros_like(images)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        known = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        weight = (1 - np.abs(rows - row)) * (1 - np.abs(columns - column)) * known  # (H, W)
        corner = images[:, row.clip(0, height - 1), column.clip(0, width - 1)]  # (N, H, W, C)
        sampled += weight[:, :, None].astype(images.dtype) * corner
    return sampled
