"""Pictures that show what a trained encoder does: reconstructions, a latent traversal, stability under rotation."""

from __future__ import annotations

from pathlib import Path

import torch

from isolatent_export.pictures import save_grid
from isolatent_train import grids
from isolatent_train.data import Splits
from isolatent_train.evaluation.displacements import KINDS
from isolatent_train.evaluation.encoding import others, posteriors
from isolatent_train.reporting.figures import stability
from isolatent_train.run import Trained

ANGLES = {"image": tuple(range(-40, 41, 5)), "point_cloud": tuple(range(-180, 181, 15))}
"""Degrees by which test inputs are turned in the stability picture."""

COLOURS = {"base": "#c44e52", "augmentation": "#dd8452", "cr": "#4c72b0", "triplet": "#55a868"}
LABELS = {
    "base": "base VAE",
    "augmentation": "augmentation only",
    "cr": "consistency-regularized",
    "triplet": "triplet loss",
}


def save_reconstructions(models: list[Trained], splits: Splits, path: Path) -> None:
    """First row: 12 test inputs; one row of reconstructions per model below."""
    inputs = splits.test.inputs[:12]
    both = [grids.reconstructions(each.model, each.likelihood, inputs) for each in models]
    save_grid([both[0][0], *(below for _, below in both)], path)


def save_traversal(trained: Trained, splits: Splits, path: Path) -> None:
    """One row per latent variable, the most varying first: its value moves by ±2.5 standard deviations of the data."""
    means = posteriors(trained.model, splits.test.inputs).mode()
    save_grid(grids.traversal(trained.model, trained.likelihood, means), path)


@torch.inference_mode()
def save_stability(models: list[Trained], splits: Splits, path: Path, *, what: str) -> dict[str, list[float]]:
    """How far each arm's posterior moves when test inputs are turned; returns the plotted figures per arm.

    Plotted: mean KL(q(z|x turned) || q(z|x)) divided by the mean KL between different inputs, per angle. `what` the
    inputs are is said in the picture.
    """
    codec = models[0].model.codec
    angles, turn = ANGLES[codec.modality], KINDS[codec.modality]["rotation"].move
    curves: dict[str, list[float]] = {
        each.config.objective.arm: [_movement(each, splits, angle) for angle in angles] for each in models
    }
    some = codec.to_network(splits.test.inputs[3:6])
    turned = [codec.pictures(codec.to_inputs(turn(some, angle, (1, 0), ()))) for angle in angles]
    labelled = {LABELS[arm]: (COLOURS[arm], values) for arm, values in curves.items()}
    stability(turned, angles, labelled, what=what).savefig(path, dpi=110)
    return curves


def _movement(trained: Trained, splits: Splits, angle: float) -> float:
    original = posteriors(trained.model, splits.test.inputs)
    turn = KINDS[trained.model.codec.modality]["rotation"].move
    moved = posteriors(trained.model, splits.test.inputs, prepare=lambda inputs: turn(inputs, angle, (1, 0), ()))
    return float(moved.kl(original).mean() / others(original).kl(original).mean())
