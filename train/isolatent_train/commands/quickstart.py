"""The whole way on built-in data: train, evaluate, export, verify, serve and query, in minutes on a CPU.

Trains the plain VAE and the consistency-regularized one on scanned digits and on clouds of points of solid shapes,
prints their metrics side by side, writes pictures, then serves all of them from one service and asks it for posteriors,
embeddings and reconstructions.

    isolatent quickstart
    isolatent quickstart --recipes digits --arms base augmentation cr --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import base64
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from tqdm import tqdm

from isolatent import Client, IsolatentError
from isolatent.cli import CommandError
from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.verify import verify
from isolatent_train.bundling import export_run
from isolatent_train.commands.evaluate import keep, require_samples
from isolatent_train.commands.export import parity_line
from isolatent_train.config import Config, ConfigError
from isolatent_train.data import DataError, Splits, load_data
from isolatent_train.evaluation import evaluate
from isolatent_train.loop import train
from isolatent_train.run import RunError, Trained
from isolatent_train.service import ServiceError, service
from isolatent_train.showcase import save_reconstructions, save_stability, save_traversal
from isolatent_train.tables import metrics_table

NAMES = {"digits": "scanned digits", "shapes": "clouds of points of solid shapes"}
"""Recipes that need no files, and what they are trained on."""


@dataclass
class Exhibit:
    """What is shown of one recipe."""

    recipe: str
    splits: Splits
    models: dict[str, list[Trained]] = field(default_factory=dict)
    """Arm -> one model per seed."""
    bundles: list[Bundle] = field(default_factory=list)

    @property
    def firsts(self) -> list[Trained]:
        """The first seed of each arm."""
        return [of_arm[0] for of_arm in self.models.values()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("quickstart"), help="where everything goes")
    parser.add_argument("--recipes", nargs="+", choices=list(NAMES), default=list(NAMES), help="what to train (all)")
    parser.add_argument("--arms", nargs="+", choices=("base", "augmentation", "cr"), default=["base", "cr"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="train each arm once per seed (0)")
    parser.add_argument("--samples", type=int, default=200, help="importance samples of the NLL (200)")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change one setting (repeat)")


def run(args: argparse.Namespace) -> int:
    """Run every step and say where the results are. Complete runs in --out are used again."""
    require_samples(args.samples)
    # What is given twice is one: a seed counted twice would make an interval of nothing.
    args.arms, args.seeds = list(dict.fromkeys(args.arms)), list(dict.fromkeys(args.seeds))
    recipes = dict.fromkeys(args.recipes)
    try:
        exhibits = [Exhibit(recipe, load_data(Config.load(recipe, args.set).data)) for recipe in recipes]
        print("1. Training")
        for each in exhibits:
            _train(each, args)
        print("\n2. Measuring on test data")
        for each in exhibits:
            _measure(each, args.samples)
        print("3. Pictures")
        for each in exhibits:
            _draw(each, args.out / each.recipe)
        print("\n4. Exporting and verifying")
        for each in exhibits:
            _export(each, args.out / "bundles")
        print("\n5. Serving and asking")
        bundles = [bundle.path for each in exhibits for bundle in each.bundles]
        with service(bundles) as url, Client(url) as client:
            print(f"   {url} serves {', '.join(model.id for model in client.models())}")
            for each in exhibits:
                _query(each, client, url, args.out / each.recipe)
        print("   stopped", flush=True)
    except (BundleError, ConfigError, DataError, RunError, ServiceError, IsolatentError) as error:
        raise CommandError(str(error)) from None
    print(f"\nDone. Pictures, runs and bundles: {args.out}/")
    print(f"Serve them yourself: isolatent serve {' '.join(map(str, bundles))}")
    return 0


def _train(exhibit: Exhibit, args: argparse.Namespace) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in exhibit.splits.counts().items())
    print(f"   {NAMES[exhibit.recipe]} ({counts})", flush=True)
    for arm in args.arms:
        for seed in args.seeds:
            settings = [f"name={exhibit.recipe}-{arm}", f"objective.arm={arm}", f"seed={seed}", *args.set]
            config = Config.load(exhibit.recipe, settings)
            out = args.out / "runs" / f"{exhibit.recipe}-{arm}-seed{seed}"
            with tqdm(total=config.training.epochs, unit="epoch", disable=None, desc=out.name) as bar:
                train(config, exhibit.splits, out, resume=True, on_epoch=partial(_advance, bar))
            print(f"   {out}: {config.training.epochs} epochs", flush=True)
            exhibit.models.setdefault(arm, []).append(Trained.open(out))


def _advance(bar: Any, row: dict[str, Any]) -> None:
    bar.update(row["epoch"] - bar.n)


def _measure(exhibit: Exhibit, samples: int) -> None:
    columns = {}
    for arm, of_arm in exhibit.models.items():
        columns[arm] = [evaluate(trained, exhibit.splits, samples=samples) for trained in of_arm]
    config, seeds = exhibit.firsts[0].config, len(exhibit.models[next(iter(exhibit.models))])
    over = f"{seeds} seeds, mean ± standard deviation [95 % interval of the mean]" if seeds > 1 else "1 seed"
    likelihood = f", S = {samples}" if "nll" in columns[next(iter(columns))][0] else ""
    print(metrics_table(columns))
    print(
        f"{NAMES[exhibit.recipe]}: {over}, {config.training.epochs} epochs, lambda {config.objective.weight:g} (cr), "
        f"N = {len(exhibit.splits.test)}{likelihood}; consistency: lower is steadier\n",
        flush=True,
    )
    for arm, of_arm in exhibit.models.items():
        for trained, metrics in zip(of_arm, columns[arm], strict=True):
            keep(trained, metrics)


def _draw(exhibit: Exhibit, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    firsts, arms = exhibit.firsts, ", ".join(exhibit.models)
    save_reconstructions(firsts, exhibit.splits, out / "reconstructions.png")
    save_traversal(firsts[-1], exhibit.splits, out / "traversal.png")
    save_stability(firsts, exhibit.splits, out / "stability.png", what=exhibit.recipe)
    print(f"   {out}/reconstructions.png: test inputs, below them each arm's reconstructions ({arms})")
    print(f"   {out}/traversal.png: what single latent variables of {firsts[-1].config.name} do")
    print(f"   {out}/stability.png: how far each arm's posterior moves when {exhibit.recipe} are turned", flush=True)


def _export(exhibit: Exhibit, out: Path) -> None:
    for trained in exhibit.firsts:
        bundle = export_run(
            trained, exhibit.splits, trained.evaluation() or {}, out / trained.config.name, overwrite=True
        )
        found = verify(bundle, torchscript=True, pt2=True)
        if found.problems:
            raise BundleError(f"{bundle.path}: {found.problems[0]}")
        print(f"   {bundle.path}: {len(found.files)} files intact, {parity_line(bundle)}", flush=True)
        exhibit.bundles.append(bundle)


def _query(exhibit: Exhibit, client: Client, url: str, out: Path) -> None:
    """Ask in the ways that users do; every way must give the same numbers."""
    inputs, model = exhibit.splits.test.inputs[:64].numpy(), exhibit.bundles[-1].manifest.name
    files = _write_files(inputs[:3], out)
    posterior = client.posterior(files[0], model=model)
    print(f"   client.posterior({files[0].name!r}, model={model!r}): ", end="")
    print(f"{len(posterior.mean)} means and variances, KL to the prior {posterior.kl:.2f} nats")
    embeddings = client.embed(inputs, model=model)
    print(f"   client.embed(numpy array {inputs.shape}): embeddings {embeddings.shape} {embeddings.dtype}")
    rebuilt = client.reconstruct(files[1], model=model)
    unit = "pixels" if inputs.dtype == np.uint8 else "points"
    print(f"   client.reconstruct({files[1].name!r}): {unit} {rebuilt.shape}")
    content = base64.b64encode(files[0].read_bytes()).decode()
    answer = httpx2.post(f"{url}/v1/embeddings", json={"model": model, "input": content}).raise_for_status().json()
    same = np.array_equal(np.float32(answer["data"][0]["embedding"]), posterior.mean)
    print(f"   POST /v1/embeddings with base64 JSON: {'the same embedding, bit for bit' if same else 'DIFFERS'}")
    if not same:
        raise ServiceError("the JSON embedding differs from the posterior mean of the same file")


def _write_files(inputs: np.ndarray[tuple[int, ...], Any], folder: Path) -> list[Path]:
    """Pixels (N, H, W, 1) as PNG files, points (N, P, 3) as text files of one point per line."""
    if inputs.dtype == np.uint8:
        files = [folder / f"{index}.png" for index in range(len(inputs))]
        for file, pixels in zip(files, inputs, strict=True):
            Image.fromarray(pixels[..., 0]).save(file)
        return files
    files = [folder / f"{index}.xyz" for index in range(len(inputs))]
    for file, points in zip(files, inputs, strict=True):
        np.savetxt(file, points)
    return files
