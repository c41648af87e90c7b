"""Train a model from a recipe.

RECIPE is a built-in name or a .toml file. Data: `digits` (built in).

    isolatent train digits
    isolatent train digits --set objective.arm=base --set seed=1 --out runs/digits-base
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from isolatent.cli import CommandError
from isolatent_train.config import Config, ConfigError, recipe_names
from isolatent_train.data import DataError, load_data, source_names
from isolatent_train.loop import train
from isolatent_train.run import RunError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", metavar="RECIPE", help=f"one of {', '.join(recipe_names())}, or a .toml file")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change one setting (repeat)")
    parser.add_argument("--data", metavar="SPEC", help=f"data instead of the recipe's: {', '.join(source_names())}")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the run's directory (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue a run that was interrupted")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="print each epoch's figures as a line of JSON")


def run(args: argparse.Namespace) -> int:
    """Train and say what to do next."""
    settings = [*args.set, *([f"data={json.dumps(args.data)}"] if args.data else [])]
    try:
        config = Config.load(args.recipe, settings)
        splits = load_data(config.data)
        out = args.out or Path("runs") / config.name
        started = time.perf_counter()
        epochs = config.training.epochs
        with tqdm(total=epochs, unit="epoch", disable=True if args.json else None, file=sys.stderr) as bar:

            def show(row: dict[str, Any]) -> None:
                bar.update(row["epoch"] - bar.n)
                bar.set_postfix({"elbo": f"{row['validation_elbo']:.1f}", "kl": f"{row['validation_kl']:.1f}"})
                if args.json:
                    print(json.dumps(row), flush=True)
                elif bar.disable and (row["epoch"] % max(1, epochs // 10) == 0 or row["epoch"] == epochs):
                    print(
                        f"epoch {row['epoch']}/{epochs}: validation ELBO {row['validation_elbo']:.2f} nats", flush=True
                    )

            train(config, splits, out, resume=args.resume, device=choose_device(args.device), on_epoch=show)
    except (ConfigError, DataError, RunError) as error:
        raise CommandError(str(error)) from None
    if not args.json:
        print(f"Trained in {time.perf_counter() - started:.0f} s. Next: isolatent evaluate {out}")
        print(f"                         isolatent export {out}")
    return 0


def choose_device(name: str) -> torch.device:
    """The device that a --device option names. Raises CommandError when there is no GPU for `cuda`."""
    if name == "cuda" and not torch.cuda.is_available():
        raise CommandError("--device cuda: torch finds no GPU; install a CUDA build of torch, or use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
