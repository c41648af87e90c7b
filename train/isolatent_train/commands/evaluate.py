"""Measure trained runs or bundles: likelihood, information, linear probe and consistency, side by side.

isolatent evaluate runs/digits-base runs/digits-cr
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from isolatent.cli import CommandError
from isolatent_export.bundle import BundleError
from isolatent_train.data import DataError, Splits, load_data, source_names
from isolatent_train.evaluation import evaluate
from isolatent_train.run import EVALUATION, RUN, RunError, Trained, write_atomically
from isolatent_train.tables import metrics_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("runs", metavar="RUN|BUNDLE", nargs="+", help="directories of complete runs or of bundles")
    parser.add_argument(
        "--data", metavar="SPEC", help=f"data instead of the training data: {', '.join(source_names())}"
    )
    parser.add_argument("--samples", metavar="S", type=int, default=1000, help="importance samples of the NLL (1000)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def run(args: argparse.Namespace) -> int:
    """Evaluate each model, keep the figures in the run, print them."""
    if args.samples < 1:
        raise CommandError(f"--samples {args.samples}: give at least 1")
    try:
        results = {path: _measure(Trained.open(path), args) for path in args.runs}
    except (BundleError, DataError, RunError) as error:
        raise CommandError(str(error)) from None
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        print(metrics_table({path: [metrics] for path, metrics in results.items()}))
    return 0


def _measure(trained: Trained, args: argparse.Namespace) -> dict[str, Any]:
    metrics = evaluate(trained, load_fitting(trained, args.data), samples=args.samples)
    if args.data is None:
        keep(trained, metrics)
    return metrics


def keep(trained: Trained, metrics: dict[str, Any]) -> None:
    """Write the metrics into a run's directory; a bundle is never changed."""
    if (trained.path / RUN).is_file():
        content = {"data": trained.config.data, "metrics": metrics}
        write_atomically(trained.path / EVALUATION, json.dumps(content, indent=2).encode())


def load_fitting(trained: Trained, data: str | None = None) -> Splits:
    """The training data, or `data`, checked against what the model takes. Raises DataError."""
    splits = load_data(data or trained.config.data)
    if splits.spec.shape != trained.spec.shape:
        raise DataError(
            f"data {data}: images of shape {splits.spec.shape}, the model takes {trained.spec.shape}; "
            "evaluate on data of that size"
        )
    return splits
