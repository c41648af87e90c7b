"""List the models that a service offers.

isolatent models --url http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse

from isolatent.cli._service import add_service_arguments, print_json, service
from isolatent.types import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `isolatent models`."""
    add_service_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print a table, or a line of JSON per model with all its facts."""
    with service(args) as client:
        models = client.models()
    if args.json:
        for model in models:
            print_json(dict(model.facts))
        return 0
    rows = [("MODEL", "VERSION", "INPUT", "LATENT", "PROVIDER", "READY"), *map(_row, models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(model: Model) -> tuple[str, ...]:
    ready = "yes" if model.ready else "no"
    return model.id, model.version, _input(model), str(model.latent_size), model.provider or "-", ready


def _input(model: Model) -> str:
    """What it takes, such as `image 28x28x1` or `point_cloud 1024x3`."""
    sides = [model.input[side] for side in ("height", "width", "channels") if side in model.input]
    shape = [model.input["points"], 3] if "points" in model.input else sides
    return " ".join([model.modality, "x".join(map(str, shape))]).strip()
