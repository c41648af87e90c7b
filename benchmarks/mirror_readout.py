"""How much of the accuracy on clouds in principal axes the arbitrary signs of these axes cost.

    python benchmarks/mirror_readout.py modelnet10

Reads the runs that benchmarks/pointcloud.py left in benchmarks/runs/NAME. Every cloud is encoded as it is and as its
eight mirror images; a linear support vector machine is fitted on the posterior mean of the first, on the mean over the
eight, and on mean and standard deviation over the eight, for every run and for the untrained encoder of every seed. The
first is also tested on copies of the test clouds, made with the run's transformations.
Writes benchmarks/results/mirror_readout-NAME.json.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from machine import settings_of, write
from torch import Tensor

from isolatent_train.data import Splits, load_data
from isolatent_train.evaluation.encoding import posteriors
from isolatent_train.evaluation.probe import linear_probe, linear_svm
from isolatent_train.models import VAE
from isolatent_train.run import Trained
from isolatent_train.transforms import Transform, transform

SIGNS = [torch.tensor(each) for each in itertools.product((1.0, -1.0), repeat=3)]
"""Of the mirror images, the cloud itself first."""


def main() -> None:
    """Measure every run and print the means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="experiment under benchmarks/runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one thread each")
    args = parser.parse_args()
    runs = sorted((Path(__file__).parent / "runs" / args.name).glob("*/seed*"))
    cases = [(run, False) for run in runs] + [(run, True) for run in runs if run.parent == runs[0].parent]
    found: dict[str, list[dict[str, float]]] = {}
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for (run, untrained), measured in zip(cases, pool.map(_measure, cases), strict=True):
            name = "untrained" if untrained else run.parent.name
            found.setdefault(name, []).append(measured)
            print(run.parent.name, run.name, "untrained" if untrained else "", measured, flush=True)
    for name, seeds in found.items():
        means = {key: statistics.fmean(each[key] for each in seeds) for key in seeds[0]}
        print(f"{name:<20}" + "  ".join(f"{key} {100 * value:.2f} %" for key, value in means.items()))
    facts = {"settings": settings_of(Trained.open(runs[0]).config), "runs": found}
    print(f"Written to {write(f'mirror_readout-{args.name}', ('isolatent', 'torch', 'scikit-learn'), facts)}")


def _measure(case: tuple[Path, bool]) -> dict[str, float]:
    """Accuracies of one run, or of its encoder before training."""
    run, untrained = case
    torch.set_num_threads(1)
    trained = Trained.open(run)
    splits = load_data(trained.config.data)
    return _accuracies((trained.untrained() if untrained else trained.model).eval(), splits, trained.config.transforms)


def _accuracies(model: VAE, splits: Splits, transforms: Sequence[Transform]) -> dict[str, float]:
    train, test = (_means(model, part.inputs) for part in (splits.train, splits.test))
    generator = torch.Generator().manual_seed(0)
    copies = posteriors(model, splits.test.inputs, prepare=lambda each: transform(each, transforms, generator)).mean
    features = {
        "one": (train[0], test[0]),
        "one, on copies": (train[0], copies),
        "mean of eight": (train.mean(0), test.mean(0)),
        "mean and deviation of eight": tuple(torch.cat([part.mean(0), part.std(0)], 1) for part in (train, test)),
    }
    accuracies = {}
    for name, (fitted, tested) in features.items():
        accuracy = linear_probe(
            (fitted.numpy(), splits.train.labels), (tested.numpy(), splits.test.labels), classifier=linear_svm
        ).accuracy
        assert accuracy is not None
        accuracies[name] = accuracy
    return accuracies


def _means(model: VAE, points: Tensor) -> Tensor:
    """Posterior means of the eight mirror images of clouds (N, P, 3): (8, N, d)."""
    return torch.stack([posteriors(model, points, prepare=lambda each, s=signs: each * s).mean for signs in SIGNS])


if __name__ == "__main__":
    main()
