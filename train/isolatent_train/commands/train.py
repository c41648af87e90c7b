"""Train a model from a recipe.

RECIPE is a built-in name or a .toml file. SPEC says what to train on: docs/data.md lists the sources.

    isolatent train digits
    isolatent train digits --set objective.arm=base --set seed=1 --out runs/digits-base
    isolatent train mnist --data idx:DIR
    isolatent train photos --data images:DIR
    isolatent train clouds --data clouds:DIR
    torchrun --standalone --nproc-per-node 2 -m isolatent train mnist --data idx:DIR
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
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
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be read")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the run's directory (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue a run that was interrupted")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="print each epoch's figures as a line of JSON")


def run(args: argparse.Namespace) -> int:
    """Train and say what to do next."""
    leads = os.environ.get("RANK", "0") == "0"  # under torchrun one process speaks for all
    try:
        config = Config.load(args.recipe, _settings(args))
        splits = load_data(config.data)
        out = args.out or Path("runs") / config.name
        started = time.perf_counter()
        with tqdm(total=config.training.epochs, unit="epoch", disable=None if leads and not args.json else True) as bar:
            show = partial(_show, bar, config.training.epochs, as_json=args.json)
            train(config, splits, out, resume=args.resume, device=choose_device(args.device), on_epoch=show)
    except (ConfigError, DataError, RunError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{error}; mend that, then continue with --resume or choose another --out") from None
    if leads and not args.json:
        print(f"Trained in {time.perf_counter() - started:.0f} s. Next: isolatent evaluate {out}")
        print(f"                         isolatent export {out}")
    return 0


def _settings(args: argparse.Namespace) -> list[str]:
    """The settings of --set, and those that have an option of their own."""
    data = [f"data.spec={json.dumps(args.data, ensure_ascii=False)}"] if args.data else []
    return [*args.set, *data, *(["data.strict=true"] if args.strict else [])]


def _show(bar: Any, epochs: int, row: dict[str, Any], *, as_json: bool) -> None:
    bar.update(row["epoch"] - bar.n)
    bar.set_postfix({"elbo": f"{row['validation_elbo']:.1f}", "kl": f"{row['validation_kl']:.1f}"})
    if as_json:
        print(json.dumps(row), flush=True)
    elif bar.disable and (row["epoch"] % max(1, epochs // 10) == 0 or row["epoch"] == epochs):
        speed = f"{row['images_per_second']:,.0f} inputs/s"
        print(f"epoch {row['epoch']}/{epochs}: validation ELBO {row['validation_elbo']:.2f} nats, {speed}", flush=True)


def choose_device(name: str) -> torch.device:
    """The device that a --device option names. Raises CommandError when there is no GPU for `cuda`."""
    if name == "cuda" and not torch.cuda.is_available():
        raise CommandError("--device cuda: torch finds no GPU; install a CUDA build of torch, or use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
