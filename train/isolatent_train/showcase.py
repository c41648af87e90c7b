"""Pictures that show what a trained encoder does: reconstructions, a latent traversal, stability under rotation."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from isolatent_export.pictures import save_grid
from isolatent_train import grids
from isolatent_train.data import Splits
from isolatent_train.evaluation.encoding import others, posteriors
from isolatent_train.evaluation.strengths import displaced
from isolatent_train.pixels import to_images
from isolatent_train.reporting.figures import stability
from isolatent_train.run import Trained

ANGLES = tuple(range(-40, 41, 5))
"""Degrees by which test images are turned in the stability picture."""

COLOURS = {"base": "#c44e52", "augmentation": "#dd8452", "cr": "#4c72b0", "triplet": "#55a868"}
LABELS = {
    "base": "base VAE",
    "augmentation": "augmentation only",
    "cr": "consistency-regularized",
    "triplet": "triplet loss",
}


def save_reconstructions(models: list[Trained], splits: Splits, path: Path) -> None:
    """First row: 12 test images; one row of reconstructions per model below."""
    pixels = splits.test.pixels[:12]
    both = [grids.reconstructions(each.model, each.likelihood, pixels) for each in models]
    save_grid([both[0][0], *(below for _, below in both)], path)


def save_traversal(trained: Trained, splits: Splits, path: Path) -> None:
    """One row per latent variable, the most varying first: its value moves by ±2.5 standard deviations of the data."""
    means = posteriors(trained.model, splits.test.pixels).mode()
    save_grid(grids.traversal(trained.model, trained.likelihood, means), path)


@torch.inference_mode()
def save_stability(models: list[Trained], splits: Splits, path: Path) -> dict[str, list[float]]:
    """How far each arm's posterior moves when test images are turned; returns the plotted figures per arm.

    Plotted: mean KL(q(z|x turned) || q(z|x)) divided by the mean KL between different images, per angle.
    """
    curves: dict[str, list[float]] = {
        each.config.objective.arm: [_movement(each, splits, angle) for angle in ANGLES] for each in models
    }
    images = to_images(splits.test.pixels[3:6])
    turned = [displaced(images, "rotation", angle) for angle in ANGLES]
    stability(turned, ANGLES, {LABELS[arm]: (COLOURS[arm], values) for arm, values in curves.items()}).savefig(
        path, dpi=110
    )
    return curves


def _movement(trained: Trained, splits: Splits, angle: float) -> float:
    original = posteriors(trained.model, splits.test.pixels)
    turn = partial(displaced, kind="rotation", strength=angle)
    moved = posteriors(trained.model, splits.test.pixels, prepare=turn)
    return float(moved.kl(original).mean() / others(original).kl(original).mean())
