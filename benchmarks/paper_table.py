"""The paper's claims as a table measured here: families x arms x seeds at equal updates on one data set.

    python benchmarks/paper_table.py --data idx:DIR --name mnist [--jobs 2]

Resumable: every run lives in benchmarks/runs/NAME/ and is trained and evaluated once; started again it goes on where it
was. Writes benchmarks/results/paper_table-NAME.json, and the tables of all such files as docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, settings_of, write

from isolatent_train.config import Config
from isolatent_train.data import load_data
from isolatent_train.evaluation import evaluate
from isolatent_train.loop import train
from isolatent_train.run import EVALUATION, Trained, write_atomically

ROOT = Path(__file__).parents[1]
FAMILIES = {
    "VAE": [],
    "beta-VAE, beta 4": ["objective.beta=4"],
    "IWAE, K 5": ["objective.bound=iwae", "objective.samples=5"],
}
ARMS = ("base", "augmentation", "cr")
COLUMNS = {
    "nll": ("NLL, nats", 1.0, 2),
    "kl": ("KL, nats", 1.0, 1),
    "mutual_information": ("MI, nats", 1.0, 2),
    "active_units": ("AU", 1.0, 1),
    "chamfer": ("Chamfer", 1.0, 4),
    "probe_accuracy": ("probe, %", 100.0, 2),
    "consistency_kl": ("consistency KL", 1.0, 2),
    "consistency_kl_normalized": ("normalised", 1.0, 3),
    "retrieval_top1": ("retrieval, %", 100.0, 1),
}
Results = dict[str, dict[str, list[dict[str, Any]]]]
"""Family -> arm -> one evaluation per seed."""


def main() -> None:
    """Train and evaluate what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    measure(parser.parse_args(), baselines={})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every table can be told."""
    parser.add_argument("--name", required=True, help="name of the experiment")
    parser.add_argument("--title", help="its headline in docs/results.md")
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="mnist")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=1000, help="S of the NLL")
    parser.add_argument("--test", type=int, help="evaluate on the first so many test images (all)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one thread each when more than one")
    parser.add_argument("--set", action="append", default=[], help="change one setting of every run")


def measure(args: argparse.Namespace, *, baselines: dict[str, float]) -> None:
    """Fill the table; `baselines` are accuracies 0..1 of other features, printed below it."""
    cells = [(family, arm, seed) for seed in args.seeds for family in args.families for arm in ARMS]
    results: Results = {family: {arm: [] for arm in ARMS} for family in args.families}
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        pending = {pool.submit(_cell, args, *cell): cell for cell in cells}
        for number, done in enumerate(as_completed(pending), 1):
            family, arm, seed = pending[done]
            metrics = done.result()
            results[family][arm].append(metrics)
            shown = f"probe {100 * metrics['probe_accuracy']:.2f} %, retrieval {100 * metrics['retrieval_top1']:.1f} %"
            print(f"{number}/{len(cells)} {family}, {arm}, seed {seed}: {shown}", flush=True)

    config = _config(args, args.families[0], "cr", args.seeds[0])
    facts = {
        "title": args.title or args.name,
        "samples": args.samples,
        "seeds": args.seeds,
        "settings": settings_of(config),
        "baselines": baselines,
    }
    write(f"paper_table-{args.name}", ("isolatent", "torch", "scikit-learn"), facts | {"results": results})
    _write_page()


def _cell(args: argparse.Namespace, family: str, arm: str, seed: int) -> dict[str, Any]:
    """One run, trained and evaluated unless that was done before."""
    if args.jobs > 1:
        torch.set_num_threads(1)
    config = _config(args, family, arm, seed)
    splits = load_data(config.data)
    splits = replace(splits, test=splits.test[: args.test])
    out = ROOT / "benchmarks" / "runs" / args.name / config.name / f"seed{seed}"
    device = torch.device(args.device)
    train(config, splits, out, resume=True, device=device)
    if not (out / EVALUATION).is_file():
        metrics = evaluate(Trained.open(out), splits, samples=args.samples, device=device)
        write_atomically(out / EVALUATION, json.dumps({"data": config.data.spec, "metrics": metrics}).encode())
    found: dict[str, Any] = json.loads((out / EVALUATION).read_text())["metrics"]
    return found


def _config(args: argparse.Namespace, family: str, arm: str, seed: int) -> Config:
    slug = "".join(c if c.isalnum() else "-" for c in f"{family}-{arm}".lower())
    own = [f"name={slug}", f"data.spec={args.data}", f"seed={seed}", f"objective.arm={arm}", "training.tracker=none"]
    return Config.load(args.recipe, [*own, *FAMILIES[family], *args.set])


def _write_page() -> None:
    """docs/results.md from every paper_table-*.json there is."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("paper_table-*.json"))]
    text = (
        "# Results\n\nWritten by `benchmarks/paper_table.py`; the figures of every run are in `benchmarks/results/`.\n"
    )
    (ROOT / "docs" / "results.md").write_text(text + "".join(_section(each) for each in found))


def _section(found: dict[str, Any]) -> str:
    settings, machine = found["settings"], found["machine"]
    first = next(iter(next(iter(found["results"].values())).values()))[0]
    objective, training, model = settings["objective"], settings["training"], settings["model"]
    columns = {name: of_column for name, of_column in COLUMNS.items() if first.get(name) is not None}
    likelihood = f"S = {found['samples']}, " if "nll" in columns else ""
    inputs = "images" if "nll" in columns else f"clouds of {settings['data']['points']} points"
    lines = [
        f"\n## {found['title']}\n",
        f"{len(found['seeds'])} seeds, mean ± standard deviation. Network {model['net']} {model['channels']}, "
        f"{model['latent']} latents; {training['epochs']} epochs of {settings['data']['limit'] or 'all'} {inputs}, "
        f"batch {training['batch_size']}, Adam {training['learning_rate']:g}, {training['schedule']}; "
        f"lambda = {objective['lambda']:g}; N = {first['test_examples']} test inputs, {likelihood}"
        f"probe fitted on {first['probe_train_examples']}; MI is at most {math.log(first['test_examples']):.2f}. "
        f"{machine['gpu'] or machine['processor']}, torch {found['versions']['torch']}, {found['date'][:10]}.\n",
        "| family | arm | " + " | ".join(label for label, _, _ in columns.values()) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for family, arms in found["results"].items():
        for arm, runs in arms.items():
            cells = [_mean([run[name] * f for run in runs], digits) for name, (_, f, digits) in columns.items()]
            lines.append(f"| {family} | {arm} | " + " | ".join(cells) + " |")
    untrained = [
        100 * run["probe_accuracy_untrained"] for run in found["results"][next(iter(found["results"]))]["base"]
    ]
    lines.append(f"\nProbe on the untrained encoder: {_mean(untrained, 2)} %.")
    lines += [f"{name}: {100 * accuracy:.2f} %." for name, accuracy in found.get("baselines", {}).items()]
    return "\n".join(lines) + "\n"


def _mean(values: list[float], digits: int) -> str:
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    main()
