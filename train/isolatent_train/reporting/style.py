"""How figures look and how they get into a page: colours for light and dark, SVG and PNG as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from isolatent_export.pictures import to_pixels

INK = "#1f2328"
"""Text and axes of figures; in a page it follows the reader's theme."""

DARK_INK = "#e6e8eb"

PALETTE = ("#4c78c8", "#e07b39", "#3f9e6a", "#c8485a", "#8a6fc9", "#a07a5c", "#d57bb4", "#7f8894", "#b3a136", "#36a5bd")
"""One colour per column, legible on white and on black."""

STEPS = ("#e8b04a", "#d9663b", "#8e4bb8")
"""Weak, middle and strong."""

_RC: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8a929c",
    "grid.alpha": 0.25,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.5,
    "svg.hashsalt": "isolatent",
}


def colour(index: int) -> str:
    """The colour of a column."""
    return PALETTE[index % len(PALETTE)]


def panels(count: int, *, columns: int = 3, height: float = 2.5, **options: Any) -> tuple[Figure, list[Any]]:
    """A figure of `count` panels, at most `columns` beside each other, and its axes."""
    columns = min(columns, count)
    rows = -(-count // columns)
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(3.3 * columns, height * rows), layout="constrained", facecolor="none")
        axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False, **options)))
    for axis in axes:
        axis.set_facecolor("none")
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def svg_uri(figure: Figure) -> str:
    """A figure as a data URI whose text and axes are dark on light pages and light on dark ones."""
    content = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(_RC):
        figure.savefig(content, format="svg", transparent=True, dpi=150, metadata=nothing)
    theme = f"<style>svg{{color:{INK}}}@media(prefers-color-scheme:dark){{svg{{color:{DARK_INK}}}}}</style>"
    text = content.getvalue()
    start = text.index(">", text.index("<svg")) + 1
    text = text[:start] + theme + text[start:].replace(INK, "currentColor")
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"


def png_uri(rows: Sequence[NDArray[Any]], *, gap: int = 1) -> tuple[str, int, int]:
    """Rows of images, each (N, H, W, C), uint8 or float in 0..1, as a data URI with its width and height in pixels.

    One pixel stays one pixel, the gaps are transparent.
    """
    height, width, channels = rows[0].shape[1:]
    columns = max(len(row) for row in rows)
    sheet = np.zeros((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(to_pixels(row)):
            place = sheet[y * (height + gap) :, x * (width + gap) :][:height, :width]
            place[..., :3], place[..., 3] = image if channels == 3 else image.repeat(3, axis=2), 255
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}", sheet.shape[1], sheet.shape[0]
