"""The plots of a report: training curves, movement against strength, its distribution, certainty against difficulty.

A figure over several columns has one colour per column, in their order; the page holds the legend.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from isolatent_export.pictures import to_pixels
from isolatent_train.evaluation.displacements import Kind
from isolatent_train.evaluation.strengths import Movement
from isolatent_train.evaluation.summary import summarize
from isolatent_train.reporting.style import STEPS, colour, panels
from isolatent_train.run import HISTORY

CURVES = {
    "validation_elbo": "validation ELBO",
    "validation_reconstruction": "validation log p(x|z)",
    "validation_kl": "validation KL to the prior",
    "train_bound": "training bound",
    "train_reconstruction": "training log p(x|z)",
    "train_consistency": "training consistency",
}
"""Columns of a run's history that are drawn, all in nats."""

History = list[dict[str, Any]]


def read_history(run: Path) -> History:
    """Figures per epoch; empty for a bundle."""
    file = run / HISTORY
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def loss_curves(histories: Sequence[Sequence[History]]) -> Figure | None:
    """One panel per figure of the history, a line per run, a colour per column; None when there is no history."""
    rows = [row for column in histories for history in column for row in history]
    shown = [key for key in CURVES if any(row.get(key) is not None for row in rows)]
    if not shown:
        return None
    figure, axes = panels(len(shown))
    for axis, key in zip(axes, shown, strict=True):
        settled = []
        for index, column in enumerate(histories):
            for history in column:
                points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
                dots = "." if len(points) == 1 else None
                axis.plot(*np.array(points or [(math.nan, math.nan)]).T, color=colour(index), alpha=0.8, marker=dots)
                settled += [value for _, value in points[len(points) // 20 + (len(points) > 3) :]]
        axis.set_title(CURVES[key])
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _limit(axis, settled)
    for axis in axes[:: min(3, len(axes))]:
        axis.set_ylabel("nats per input")
    return figure


def _limit(axis: Any, values: list[float]) -> None:
    """Room for values after the first epochs, which would squeeze all others."""
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    if math.isfinite(low) and math.isfinite(high) and high > low:
        axis.set_ylim(low - 0.05 * (high - low), high + 0.08 * (high - low))


def strength_curves(
    columns: Sequence[Sequence[Mapping[str, Any]]], kinds: Mapping[str, Kind], trained: Mapping[str, Sequence[float]]
) -> Figure:
    """Normalised KL above, retrieval below, against strength; a band is the 95 % interval over the column's seeds.

    columns: `consistency_by_strength` of each run; trained: strengths that models were trained with, dotted.
    """
    figure, axes = panels(2 * len(kinds), columns=len(kinds), sharey="row")
    for position, (name, kind) in enumerate(kinds.items()):
        above, below = axes[position], axes[position + len(kinds)]
        for index, column in enumerate(columns):
            _band(above, kind.strengths, [each[name]["kl_normalized"] for each in column], index)
            _band(below, kind.strengths, [each[name]["retrieval_top1"] for each in column], index)
        for axis in (above, below):
            for strength in trained.get(name, ()):
                axis.axvline(strength, color="#8a929c", linestyle=":", linewidth=1.2)
            axis.set_xlim(left=0)
        above.set_title(name)
        below.set_xlabel(kind.unit)
    axes[0].set_ylabel("KL, 1 = a stranger")
    axes[0].set_ylim(bottom=0)
    axes[len(kinds)].set_ylabel("original found")
    axes[len(kinds)].set_ylim(0, 1.03)
    return figure


def _band(axis: Any, strengths: Sequence[float], curves: list[list[float | None]], index: int) -> None:
    points = [[value for value in values if value is not None] for values in zip(*curves, strict=True)]
    found = [(x, summarize(values)) for x, values in zip(strengths, points, strict=True) if values]
    axis.plot([x for x, _ in found], [s.mean for _, s in found], color=colour(index), marker="o", markersize=3)
    ranged = [(x, s.low, s.high) for x, s in found if s.low is not None]
    if ranged:
        axis.fill_between(*np.array(ranged).T, color=colour(index), alpha=0.18, linewidth=0)


def histogram_bins(columns: Sequence[Mapping[str, Sequence[Movement]]]) -> dict[str, NDArray[np.float64]]:
    """Bins per kind of transformation, in powers of ten, that hold all but the rarest inputs of every column."""
    bins = {}
    for name in columns[0]:
        logs = np.concatenate([_logarithms(each) for column in columns for each in column[name]])
        low, high = np.percentile(logs, [0.5, 99.5])
        bins[name] = np.linspace(low - 0.1, max(high, low + 0.1) + 0.1, 60)
    return bins


def histograms(
    moved: Mapping[str, Sequence[Movement]], kinds: Mapping[str, Kind], bins: Mapping[str, NDArray[np.float64]]
) -> Figure:
    """How the KL of single inputs is distributed at a weak, a middle and a strong transformation of each kind."""
    figure, axes = panels(len(moved), height=2.5)
    for axis, (name, movements) in zip(axes, moved.items(), strict=True):
        edges = bins[name]
        for shade, movement in zip(STEPS, movements, strict=True):
            kept = np.clip(_logarithms(movement), edges[0], edges[-1])
            axis.hist(kept, bins=edges, color=shade, alpha=0.3)
            axis.hist(kept, bins=edges, color=shade, histtype="step", linewidth=1.3, label=f"{movement.strength:g}")
        axis.set_xticks(_round_logarithms(edges[0], edges[-1]))
        axis.xaxis.set_major_formatter(lambda exponent, _position: f"{10.0**exponent:g}")
        axis.set_xlim(edges[0], edges[-1])
        axis.set_yticks([])
        axis.set_title(f"{name}, {kinds[name].unit}", pad=20)
        axis.set_xlabel("KL, nats")
        axis.legend(
            frameon=False,
            fontsize=8,
            labelcolor="linecolor",
            loc="lower center",
            bbox_to_anchor=(0.5, 0.98),
            ncols=len(movements),
            handlelength=1.2,
        )
    axes[0].set_ylabel("inputs")
    return figure


def _logarithms(movement: Movement) -> NDArray[np.float64]:
    kl: NDArray[np.float64] = movement.kl.double().clamp(min=1e-6).cpu().numpy()  # 0 where nothing moved at all
    return np.asarray(np.log10(kl))


def _round_logarithms(low: float, high: float) -> list[float]:
    """Logarithms of round numbers between two exponents: powers of ten, or 1, 2, 5, 10, ... where those are few."""
    decades = [float(exponent) for exponent in range(math.ceil(low), math.floor(high) + 1)]
    if len(decades) > 1:
        return decades
    steps = [exponent + math.log10(step) for exponent in range(math.floor(low), math.ceil(high)) for step in (1, 2, 5)]
    return [value for value in steps if low <= value <= high]


def certainty(errors: Tensor, deviations: Tensor, index: int) -> Figure:
    """Mean posterior standard deviation against reconstruction error, a dot per input (N,)."""
    figure, (axis,) = panels(1, height=2.6)
    size = 4 if len(errors) > 500 else 10
    axis.scatter(errors.cpu(), deviations.cpu(), s=size, color=colour(index), alpha=0.4, linewidths=0, rasterized=True)
    axis.set_xlabel("reconstruction error")
    axis.set_ylabel("mean posterior std")
    return figure


def rank_correlation(a: Tensor, b: Tensor) -> float | None:
    """Spearman's rank correlation of two (N,); None where either does not vary."""
    if len(a) < 3 or float(a.std()) == 0 or float(b.std()) == 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(a.cpu().numpy(), b.cpu().numpy()).statistic)


def stability(
    turned: Sequence[NDArray[Any]],
    angles: Sequence[int],
    curves: Mapping[str, tuple[str, list[float]]],
    *,
    what: str,
) -> Figure:
    """Three inputs at several angles beside the curve of each model: label -> (colour, value per angle).

    turned: pictures (3, H, W, C) at each angle; what: their name, in the plural.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    strips, plot = parts
    shown = range(0, len(angles), (len(angles) - 1) // 4)
    grid = strips.subplots(3, len(shown))
    for column, index in enumerate(shown):
        for row in range(3):
            grid[row][column].imshow(to_pixels(turned[index][row]), cmap="gray", vmin=0, vmax=255)
            grid[row][column].set_axis_off()
        grid[0][column].set_title(f"{angles[index]}°", fontsize=9)
    strips.suptitle(f"the same {what}, turned", fontsize=11)
    axes = plot.subplots()
    for label, (shade, values) in curves.items():
        axes.plot(angles, values, color=shade, label=label, marker="o", markersize=3)
    axes.set_xlabel("rotation, degrees")
    axes.set_ylabel(f"KL(q(z|x turned) ‖ q(z|x)),\nas a fraction of that between different {what}")
    axes.set_title("how far the posterior moves", fontsize=11)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
