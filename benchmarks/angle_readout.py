"""Why augmentation alone does not steady posteriors: how legibly a rotation is written into the latents of each arm.

    python benchmarks/angle_readout.py mnist-reduced

Reads the runs that benchmarks/paper_table.py left in benchmarks/runs/NAME. Test images are turned by U(-15, 15)
degrees; ridge regression predicts the angle from the displacement of the posterior mean, fitted on one half of the
images and scored on the other. Writes benchmarks/results/angle_readout-NAME.json.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path

import numpy as np
import torch
from machine import write
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from isolatent_train.data import load_data
from isolatent_train.evaluation.encoding import posteriors
from isolatent_train.run import Trained
from isolatent_train.transforms import Affine

DEGREES = 15
IMAGES = 4000


def main() -> None:
    """Measure every run and print the means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="experiment under benchmarks/runs")
    args = parser.parse_args()
    runs = Path(__file__).parent / "runs" / args.name
    found: dict[str, list[dict[str, float]]] = {}
    for run in sorted(runs.glob("*/seed*")):
        found.setdefault(run.parent.name, []).append(_measure(Trained.open(run)))
    for name, seeds in found.items():
        means = {key: statistics.fmean(each[key] for each in seeds) for key in seeds[0]}
        print(f"{name:<32}" + "  ".join(f"{key} {value:.3f}" for key, value in means.items()))
    path = write(
        f"angle_readout-{args.name}", ("isolatent", "torch", "scikit-learn"), {"degrees": DEGREES, "runs": found}
    )
    print(f"Written to {path}")


def _measure(trained: Trained) -> dict[str, float]:
    """R^2 of the angle, mean squared displacement of the posterior mean, mean posterior variance."""
    images = load_data(trained.config.data).test.inputs[:IMAGES]
    draws = torch.rand(len(images), generator=torch.Generator().manual_seed(0)) * 2 - 1
    angles = draws * math.radians(DEGREES)
    waiting = iter(angles.split(1024))  # in step with the batches of `posteriors`

    def turn(batch: Tensor) -> Tensor:
        still = torch.zeros(len(batch), 2)
        return Affine().apply(batch, angle=next(waiting), shift=still, scale=torch.ones(len(batch)))

    original = posteriors(trained.model, images, batch=1024)
    turned = posteriors(trained.model, images, prepare=turn, batch=1024)
    moved, half = (turned.mean - original.mean).numpy(), len(images) // 2
    regression = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 7)))
    regression.fit(moved[:half], angles[:half].numpy())
    return {
        "angle_r2": float(regression.score(moved[half:], angles[half:].numpy())),
        "displacement": float((moved**2).sum(1).mean()),
        "variance": float(original.variance.mean()),
    }


if __name__ == "__main__":
    main()
