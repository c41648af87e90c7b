"""Pictures that show what a trained encoder does: reconstructions, a latent traversal, stability under rotation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor

from isolatent_export.pictures import save_grid
from isolatent_train.data import Splits
from isolatent_train.evaluation.metrics import posteriors
from isolatent_train.pixels import to_images, to_layout
from isolatent_train.run import Trained
from isolatent_train.transforms import Affine

matplotlib.use("Agg")

ANGLES = tuple(range(-40, 41, 5))
"""Degrees by which test images are turned in the stability picture."""

COLOURS = {"base": "#c44e52", "augmentation": "#dd8452", "cr": "#4c72b0"}
LABELS = {"base": "base VAE", "augmentation": "augmentation only", "cr": "consistency-regularized"}


@torch.inference_mode()
def save_reconstructions(models: list[Trained], splits: Splits, path: Path) -> None:
    """First row: 12 test images; one row of reconstructions per model below."""
    images = to_images(splits.test.pixels[:12])
    rows = [to_layout(each.likelihood.mean(each.model.decode(each.model.encode(images).mode()))) for each in models]
    save_grid([to_layout(images).numpy(), *(row.numpy() for row in rows)], path)


@torch.inference_mode()
def save_traversal(trained: Trained, splits: Splits, path: Path, *, steps: int = 9, units: int = 8) -> None:
    """One row per latent variable, the most varying first: its value moves by ±2.5 standard deviations of the data."""
    means = posteriors(trained.model, to_images(splits.test.pixels)).mode()  # (N, d)
    spread = means.std(0)
    rows = []
    for unit in spread.argsort(descending=True)[:units]:
        latents = means[:1].repeat(steps, 1)
        latents[:, unit] = means[:, unit].mean() + spread[unit] * torch.linspace(-2.5, 2.5, steps)
        rows.append(to_layout(trained.likelihood.mean(trained.model.decode(latents))).numpy())
    save_grid(rows, path)


@torch.inference_mode()
def save_stability(models: list[Trained], splits: Splits, path: Path) -> dict[str, list[float]]:
    """How far each arm's posterior moves when test images are turned; returns the plotted figures per arm.

    Plotted: mean KL(q(z|x turned) || q(z|x)) divided by the mean KL between different images, per angle.
    """
    from matplotlib import pyplot

    images = to_images(splits.test.pixels)
    turned = [_turn(images, angle) for angle in ANGLES]
    curves: dict[str, list[float]] = {
        each.config.objective.arm: [_movement(each, images, view) for view in turned] for each in models
    }

    figure = pyplot.figure(figsize=(9, 3.5), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    strips, plot = parts
    shown = range(0, len(ANGLES), 4)
    grid = strips.subplots(3, len(shown))
    for column, index in enumerate(shown):
        for row in range(3):
            grid[row][column].imshow(turned[index][3 + row, 0], cmap="gray", vmin=0, vmax=1)
            grid[row][column].set_axis_off()
        grid[0][column].set_title(f"{ANGLES[index]}°", fontsize=9)
    strips.suptitle("the same digits, turned", fontsize=11)
    axes = plot.subplots()
    for arm, values in curves.items():
        axes.plot(ANGLES, values, color=COLOURS[arm], label=LABELS[arm], marker="o", markersize=3)
    axes.set_xlabel("rotation, degrees")
    axes.set_ylabel("KL(q(z|x turned) ‖ q(z|x)),\nas a fraction of that between different digits")
    axes.set_title("how far the posterior moves", fontsize=11)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return curves


def _turn(images: Tensor, degrees: float) -> Tensor:
    count = len(images)
    angle = torch.full((count,), math.radians(degrees))
    return Affine().apply(images, angle=angle, shift=torch.zeros(count, 2), scale=torch.ones(count))


def _movement(trained: Trained, images: Tensor, turned: Tensor) -> float:
    original, moved = posteriors(trained.model, images), posteriors(trained.model, turned)
    others = original[torch.from_numpy(np.roll(np.arange(len(images)), len(images) // 2))]
    return float(moved.kl(original).mean() / others.kl(original).mean())
