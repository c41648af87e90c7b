"""Posterior means and variances of images or point clouds: a table, or all the numbers with --json.

isolatent posterior digit.png
isolatent posterior 'scans/*.ply' --model shapes --json
"""

from __future__ import annotations

import argparse

import numpy as np

from isolatent.cli._service import add_model_argument, add_service_arguments, files, numbers, print_json, service
from isolatent.types import Posterior


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `isolatent posterior`."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, or a pattern in quotes")
    add_model_argument(parser)
    add_service_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print a row per file: |mean|, kl in nats, mean standard deviation; or a line of JSON with mean and variance."""
    paths = files(args.files)
    with service(args) as client:
        posteriors = client.posteriors(paths, args.model)
    if args.json:
        for path, posterior in zip(paths, posteriors, strict=True):
            print_json(_facts(path, posterior))
        return 0
    width = max(len("FILE"), *map(len, paths))
    print(f"{'FILE':{width}}  {'|MEAN|':>9}  {'KL (NATS)':>9}  {'MEAN STD':>9}")
    for path, posterior in zip(paths, posteriors, strict=True):
        length = np.linalg.norm(posterior.mean)
        print(f"{path:{width}}  {length:9.4f}  {posterior.kl:9.4f}  {posterior.std.mean():9.4f}")
    return 0


def _facts(path: str, posterior: Posterior) -> dict[str, object]:
    return {
        "file": path,
        "model": posterior.model,
        "version": posterior.version,
        "mean": numbers(posterior.mean),
        "variance": numbers(posterior.variance),
        "kl": float(str(np.float32(posterior.kl))),
    }
