"""Pictures as PNG files for cards and reports: grids of images, and point clouds drawn by NumPy alone (no window)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

_AZIMUTH, _ELEVATION = np.radians(-55.0), np.radians(25.0)
"""A three-quarter view: from the front left and a little above; z is up."""

_RAMP = np.array([[222, 235, 243], [139, 188, 217], [52, 118, 181], [16, 52, 110]], np.float64)
"""Colours from the farthest point to the nearest: what is far fades into the white background."""

SIDE = 96
"""Images are enlarged by whole numbers up to about so many pixels."""


def save_grid(rows: list[NDArray[Any]], path: Path, *, gap: int = 2) -> None:
    """Write rows of images to `path`. Each row is (N, H, W, C), uint8 or float in 0..1; small ones are enlarged."""
    height, width, channels = rows[0].shape[1:]
    scale = max(1, SIDE // height)
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


def render(
    points: NDArray[Any], *, size: int = 96, centre: ArrayLike = 0.0, reach: ArrayLike = 1.0
) -> NDArray[np.uint8]:
    """Clouds (N, P, 3), z up, as pictures (N, size, size, 3) uint8: discs, the near ones over the far ones and darker.

    The picture holds the sphere of radius `reach` around `centre`; both may be one for all or one per cloud, see
    `framing`. By default that is the unit sphere, where normalised clouds are. What lies outside is cut off, points
    that are not finite are left out.
    """
    count, number = points.shape[:2]
    placed = (points.astype(np.float64) - np.asarray(centre)) / np.asarray(reach)
    right, up, depth = np.moveaxis(placed @ _camera(), -1, 0)  # (N, P) each, within -1..1 inside the sphere
    order = np.argsort(depth, axis=1)  # far to near: a later disc covers an earlier one, as with a z-buffer
    right, up, depth = (np.take_along_axis(part, order, axis=1) for part in (right, up, depth))
    rows, columns, light = _disc(size, number)
    half = (size - 1) / 2
    scale = half - rows.max()  # the outermost discs fit as well
    with np.errstate(invalid="ignore"):  # NaN coordinates become some integer, and are outside
        y = np.rint(half - up * scale)[..., None] + rows  # (N, P, K)
        x = np.rint(half + right * scale)[..., None] + columns
        inside = np.isfinite(depth)[..., None] & (y >= 0) & (y < size) & (x >= 0) & (x < size)
    cloud = np.broadcast_to(np.arange(count)[:, None, None], y.shape)
    colours = _colour(np.nan_to_num(depth))[:, :, None, :] * light[:, None]  # (N, P, K, 3)
    pictures = np.full((count, size, size, 3), 255, np.uint8)
    pictures[cloud[inside], y[inside].astype(np.intp), x[inside].astype(np.intp)] = colours[inside].astype(np.uint8)
    return pictures


def framing(points: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre (N, 1, 3) and reach (N, 1, 1) that show each of the clouds (N, P, 3) whole, for clouds in raw units."""
    exact = points.astype(np.float64)
    centre = (exact.min(axis=1, keepdims=True) + exact.max(axis=1, keepdims=True)) / 2
    reach = np.linalg.norm(exact - centre, axis=2).max(axis=1)[:, None, None]
    return centre, np.where(reach > 0, reach, 1.0)


def _camera() -> NDArray[np.float64]:
    """Columns: right, up and towards the viewer."""
    across, tilt = (np.cos(_AZIMUTH), np.sin(_AZIMUTH)), (np.cos(_ELEVATION), np.sin(_ELEVATION))
    right = [-across[1], across[0], 0.0]
    up = [-tilt[1] * across[0], -tilt[1] * across[1], tilt[0]]
    towards = [tilt[0] * across[0], tilt[0] * across[1], tilt[1]]
    return np.array([right, up, towards]).T


def _disc(size: int, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Row and column offsets of a disc's pixels and how bright each is: fewer points are drawn larger."""
    radius = float(np.clip(0.6 * size / np.sqrt(number), 0.5, size / 16))
    side = np.arange(-int(radius), int(radius) + 1)
    rows, columns = (part.ravel() for part in np.meshgrid(side, side, indexing="ij"))
    distance = np.hypot(rows, columns) / (radius + 0.5)
    kept = distance <= 1
    light = 1 - 0.35 * distance[kept] ** 2  # darker towards its edge, so that neighbours stay apart
    return rows[kept].astype(np.float64), columns[kept].astype(np.float64), light


def _colour(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Depth -1..1 -> colours (..., 3) in 0..255."""
    steps = np.linspace(-1, 1, len(_RAMP))
    return np.stack([np.interp(depth, steps, channel) for channel in _RAMP.T], axis=-1)
