"""The whole way on built-in data: train, evaluate, export, verify, serve and query, in minutes on a CPU.

Trains the plain VAE and the consistency-regularized one on scanned digits, prints their metrics side by side, writes
pictures, then serves both and asks the service for posteriors, embeddings and reconstructions.

    isolatent quickstart
    isolatent quickstart --arms base augmentation cr --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import base64
import io
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
from isolatent_train.commands.evaluate import keep
from isolatent_train.commands.export import parity_line
from isolatent_train.config import Config, ConfigError
from isolatent_train.data import Splits, load_data
from isolatent_train.evaluation import evaluate
from isolatent_train.loop import train
from isolatent_train.run import RunError, Trained
from isolatent_train.service import ServiceError, service
from isolatent_train.showcase import save_reconstructions, save_stability, save_traversal
from isolatent_train.tables import metrics_table

RECIPE = "digits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("quickstart"), help="where everything goes")
    parser.add_argument("--arms", nargs="+", choices=("base", "augmentation", "cr"), default=["base", "cr"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="train each arm once per seed (0)")
    parser.add_argument("--samples", type=int, default=200, help="importance samples of the NLL (200)")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change one setting (repeat)")


def run(args: argparse.Namespace) -> int:
    """Run every step and say where the results are. Complete runs in --out are used again."""
    try:
        splits = load_data(Config.load(RECIPE, args.set).data)
        models = _train(args, splits)
        _measure(models, splits, args.samples)
        _draw(models, splits, args.out)
        bundles = _export(models, splits, args.out / "bundles")
        _query(bundles, splits, args.out)
    except (BundleError, ConfigError, RunError, ServiceError, IsolatentError) as error:
        raise CommandError(str(error)) from None
    print(f"\nDone. Pictures, runs and bundles: {args.out}/")
    print(f"Serve them yourself: isolatent serve {' '.join(str(bundle.path) for bundle in bundles)}")
    return 0


def _train(args: argparse.Namespace, splits: Splits) -> dict[str, list[Trained]]:
    counts = ", ".join(f"{count} {name}" for name, count in splits.counts().items())
    print(f"1. Training on scanned digits ({counts})")
    models: dict[str, list[Trained]] = {}
    for arm in args.arms:
        for seed in args.seeds:
            settings = [f"name={RECIPE}-{arm}", f"objective.arm={arm}", f"seed={seed}", *args.set]
            config = Config.load(RECIPE, settings)
            out = args.out / "runs" / f"{arm}-seed{seed}"
            with tqdm(total=config.training.epochs, unit="epoch", disable=None, desc=out.name) as bar:
                train(config, splits, out, resume=True, on_epoch=partial(_advance, bar))
            print(f"   {out}: {config.training.epochs} epochs", flush=True)
            models.setdefault(arm, []).append(Trained.open(out))
    return models


def _advance(bar: Any, row: dict[str, Any]) -> None:
    bar.update(row["epoch"] - bar.n)


def _measure(models: dict[str, list[Trained]], splits: Splits, samples: int) -> None:
    print("\n2. Measuring on the test digits")
    columns = {}
    for arm, of_arm in models.items():
        columns[arm] = [evaluate(trained, splits, samples=samples) for trained in of_arm]
        for trained, metrics in zip(of_arm, columns[arm], strict=True):
            keep(trained, metrics)
    first = next(iter(models.values()))
    seeds = f"{len(first)} seeds, mean ± standard deviation [95 % interval of the mean]" if len(first) > 1 else "1 seed"
    config = first[0].config
    print(metrics_table(columns))
    print(
        f"{seeds}, {config.training.epochs} epochs, lambda {config.objective.weight:g} (cr), "
        f"N = {len(splits.test)} test images, S = {samples}; consistency: lower is steadier",
        flush=True,
    )


def _draw(models: dict[str, list[Trained]], splits: Splits, out: Path) -> None:
    print("\n3. Pictures")
    firsts = [of_arm[0] for of_arm in models.values()]
    save_reconstructions(firsts, splits, out / "reconstructions.png")
    save_traversal(firsts[-1], splits, out / "traversal.png")
    save_stability(firsts, splits, out / "stability.png")
    print(f"   {out}/reconstructions.png: test digits, below each arm's reconstructions ({', '.join(models)})")
    print(f"   {out}/traversal.png: what single latent variables of {firsts[-1].config.name} do")
    print(f"   {out}/stability.png: how far each arm's posterior moves when digits are turned", flush=True)


def _export(models: dict[str, list[Trained]], splits: Splits, out: Path) -> list[Bundle]:
    print("\n4. Exporting and verifying")
    bundles = []
    for of_arm in models.values():
        first = of_arm[0]
        bundle = export_run(first, splits, first.evaluation() or {}, out / first.config.name, overwrite=True)
        found = verify(bundle, torchscript=True)
        if found.problems:
            raise BundleError(f"{bundle.path}: {found.problems[0]}")
        print(f"   {bundle.path}: {len(found.files)} files intact, {parity_line(bundle)}", flush=True)
        bundles.append(bundle)
    return bundles


def _query(bundles: list[Bundle], splits: Splits, out: Path) -> None:
    print("\n5. Serving and asking")
    digits = splits.test.pixels[:64].numpy()  # (64, 16, 16, 1)
    files = _write_pngs(digits[:3], out / "digits")
    model = bundles[-1].manifest.name
    with service([bundle.path for bundle in bundles]) as url, Client(url) as client:
        print(f"   {url} serves {', '.join(each.id for each in client.models())}")
        posterior = client.posterior(files[0], model=model)
        print(
            f"   client.posterior({files[0].name!r}): {len(posterior.mean)} means and variances, "
            f"KL to the prior {posterior.kl:.2f} nats"
        )
        embeddings = client.embed(digits, model=model)
        print(f"   client.embed(numpy array {digits.shape}): embeddings {embeddings.shape} {embeddings.dtype}")
        picture = client.reconstruct(files[1], model=model)
        print(f"   client.reconstruct({files[1].name!r}): pixels {picture.shape} in 0..1")
        content = base64.b64encode(files[0].read_bytes()).decode()
        answer = httpx2.post(f"{url}/v1/embeddings", json={"model": model, "input": content}).raise_for_status().json()
        same = np.array_equal(np.float32(answer["data"][0]["embedding"]), posterior.mean)
        print(f"   POST /v1/embeddings with base64 JSON: {'the same embedding, bit for bit' if same else 'DIFFERS'}")
        if not same:
            raise ServiceError("the JSON embedding differs from the posterior mean of the same file")
    print("   stopped", flush=True)


def _write_pngs(digits: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"digit{index}.png" for index in range(len(digits))]
    for file, digit in zip(files, digits, strict=True):
        content = io.BytesIO()
        Image.fromarray(digit[..., 0]).save(content, "PNG")
        file.write_bytes(content.getvalue())
    return files
