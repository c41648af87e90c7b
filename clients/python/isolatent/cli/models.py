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
    sides = [str(model.input[side]) for side in ("height", "width", "channels") if side in model.input]
    kind = " ".join([model.modality, "x".join(sides)]).strip()
    return model.id, model.version, kind, str(model.latent_size), model.provider, "yes" if model.ready else "no"
