"""Measure trained runs or bundles: likelihood, information, linear probe and consistency, side by side.

Runs that differ in the seed only make one column: mean, standard deviation and 95 % confidence interval. One run gets
a report, RUN/report.html, with plots and pictures; several get one with --report.

    isolatent evaluate runs/digits
    isolatent evaluate runs/base-0 runs/base-1 runs/cr-0 runs/cr-1 --report comparison.html
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from isolatent.cli import CommandError
from isolatent_export.bundle import MANIFEST, BundleError
from isolatent_export.manifest import ImageInput, InputSpec
from isolatent_train.commands.train import choose_device
from isolatent_train.config import DataSection
from isolatent_train.data import DataError, Splits, load_data, source_names
from isolatent_train.evaluation import evaluate
from isolatent_train.evaluation.machine import machine
from isolatent_train.evaluation.summary import Group, group_runs, summarize_metrics
from isolatent_train.fitting import NAMES
from isolatent_train.report import Column, write_report
from isolatent_train.run import EVALUATION, RUN, RunError, Trained, require_unchanged, write_atomically
from isolatent_train.tables import metrics_table

REPORT = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("runs", metavar="RUN|BUNDLE", nargs="+", help="directories of complete runs or of bundles")
    parser.add_argument(
        "--data", metavar="SPEC", help=f"data instead of the training data: {', '.join(source_names())}"
    )
    parser.add_argument("--samples", metavar="S", type=int, default=1000, help="importance samples of the NLL (1000)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(
        "--report",
        metavar="FILE.html",
        nargs="?",
        const=REPORT,
        help=f"where the report goes ({REPORT}); without it, one run's own data: RUN/{REPORT}, otherwise none",
    )


def run(args: argparse.Namespace) -> int:
    """Open everything, then measure each model, keep the figures in its run, print them and write the report."""
    require_samples(args.samples)
    device = choose_device(args.device)
    unwritten: list[str] = []
    try:
        models = {path: Trained.open(path) for path in args.runs}
        report = _report_path(args, models)
        data = _load_all(models, args.data)
        groups = group_runs({path: trained.config for path, trained in models.items()})
        results = {path: _measure(path, models[path], data[path], args, device, unwritten) for path in models}
    except (BundleError, DataError, RunError) as error:
        raise CommandError(str(error)) from None
    if args.json:
        print(json.dumps(_as_json(groups, results, args, device), indent=2, allow_nan=False))
    else:
        _print_table(groups, results, args.samples)
    if report is not None:
        columns = [_column(group, models, results, data) for group in groups]
        try:
            write_report(columns, report, data=args.data, machine=machine(device))
            if not args.json:
                print(f"Report: {report}")
        except OSError as error:
            unwritten.append(f"{report}: {error.strerror}; choose another file with --report")
    if unwritten:
        raise CommandError(unwritten[0])
    return 0


# ---- before anything is computed ----


def require_samples(samples: int) -> None:
    """Raise CommandError when the NLL cannot be estimated with so many importance samples."""
    if samples < 1:
        raise CommandError(f"--samples {samples}: give at least 1")


def _report_path(args: argparse.Namespace, models: dict[str, Trained]) -> Path | None:
    """Where the report goes, None for nowhere; a bundle is never added to."""
    if args.report is None:
        (only, *more) = models.values()
        return None if more or args.data is not None or not _is_run(only) else only.path / REPORT
    path = Path(args.report)
    examples = {NAMES[trained.spec.modality]: run for run, trained in models.items()}
    if len(examples) > 1:
        kinds = " and ".join(f"{kind} ({run})" for kind, run in examples.items())
        raise CommandError(f"--report {path}: no plot compares {kinds}; write a report of each, or go without --report")
    if path.suffix.lower() not in (".html", ".htm"):
        raise CommandError(f"--report {path}: give a file that ends in .html, or put --report after the runs")
    if not path.parent.is_dir() or path.is_dir():
        raise CommandError(f"--report {path}: {path.parent} is no directory to write it to; make it first")
    if (path.parent / MANIFEST).is_file():
        raise CommandError(f"--report {path}: {path.parent} is a bundle and stays as it is; choose another folder")
    return path


def _load_all(models: dict[str, Trained], data: str | None) -> dict[str, Splits]:
    """Each model's data; data that several share is loaded once."""
    loaded: dict[DataSection, Splits] = {}
    for trained in models.values():
        section = _section(trained, data)
        if section not in loaded:
            loaded[section] = load_data(section)
        _require_fitting(trained, loaded[section], section.spec)
    if data is None:
        prints = {section: splits.fingerprint() for section, splits in loaded.items()}
        for trained in models.values():
            _require_unchanged(trained, prints[trained.config.data])
    return {path: loaded[_section(trained, data)] for path, trained in models.items()}


def load_fitting(trained: Trained) -> Splits:
    """The training data, checked against the model and the data it was trained on. Raises DataError or RunError."""
    splits = load_data(trained.config.data)
    _require_fitting(trained, splits, trained.config.data.spec)
    _require_unchanged(trained, splits.fingerprint())
    return splits


def _section(trained: Trained, data: str | None) -> DataSection:
    """How the training data is loaded, or how `data` becomes what the model takes."""
    if data is None:
        return trained.config.data
    return trained.config.data.model_copy(update={"spec": data, **_shape(trained.spec)})


def _shape(spec: InputSpec) -> dict[str, Any]:
    """The data settings that make inputs what `spec` says."""
    if isinstance(spec, ImageInput):
        return {"size": (spec.height, spec.width), "channels": spec.channels, "resize": spec.resize, "fill": spec.fill}
    return {"points": spec.points, "normalization": spec.normalization, "sampling": spec.sampling}


def _require_fitting(trained: Trained, splits: Splits, spec: str) -> None:
    if splits.spec.shape != trained.spec.shape:
        raise DataError(
            f"data {spec}: inputs of shape {splits.spec.shape}, {trained.path} takes {trained.spec.shape}; "
            "evaluate on data of that kind and size"
        )
    for name, part in (("test", splits.test), ("training", splits.train)):
        if len(part) == 0:
            raise DataError(f"data {spec}: the {name} split is empty; give more inputs or another --data")


def _require_unchanged(trained: Trained, fingerprint: str) -> None:
    remedy = "restore it, train again, or evaluate on data of its own with --data SPEC"
    require_unchanged(trained.path, trained.training, fingerprint, remedy)


# ---- measure, keep, show ----


def _measure(
    path: str,
    trained: Trained,
    splits: Splits,
    args: argparse.Namespace,
    device: torch.device,
    unwritten: list[str],
) -> dict[str, Any]:
    """The metrics, kept at once: others may take hours yet. What cannot be kept is said below the table."""
    with tqdm(total=len(splits.test), unit="input", disable=None, desc=path, leave=False) as bar:
        metrics = evaluate(trained, splits, samples=args.samples, device=device, on_inputs=bar.update)
    if args.data is None:
        try:
            keep(trained, metrics)
        except RunError as error:
            unwritten.append(str(error))
    return metrics


def keep(trained: Trained, metrics: dict[str, Any]) -> None:
    """Write the metrics into a run's directory; a bundle is never changed. Raises RunError when they cannot be."""
    if _is_run(trained):
        content, file = {"data": trained.config.data.spec, "metrics": metrics}, trained.path / EVALUATION
        try:
            write_atomically(file, json.dumps(content, indent=2).encode())
        except OSError as error:
            remedy = "make room or make the folder writable, and evaluate again"
            raise RunError(f"{file}: {error.strerror}, its figures are not kept; {remedy}") from None


def _is_run(trained: Trained) -> bool:
    return (trained.path / RUN).is_file()


def _as_json(
    groups: list[Group], results: dict[str, dict[str, Any]], args: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    columns = []
    for group in groups:
        summaries = summarize_metrics([results[path] for path in group.paths])
        values = {name: summary and summary.values() for name, summary in summaries.items()}
        columns.append({**group.facts(), "metrics": values})
    return {"data": args.data, "machine": machine(device), "columns": columns, "runs": results}


def _print_table(groups: list[Group], results: dict[str, dict[str, Any]], samples: int) -> None:
    print(metrics_table({group.label: [results[path] for path in group.paths] for group in groups}))
    seeds = sorted({len(group.paths) for group in groups})
    sizes = sorted({metrics["test_examples"] for metrics in results.values()})
    over = f"mean ± standard deviation [95 % interval of the mean] over n = {_numbers(seeds)} seeds"
    likelihood = f", S = {samples}" if any("nll" in metrics for metrics in results.values()) else ""
    print(f"{over if seeds[-1] > 1 else 'one seed'}; N = {_numbers(sizes)} test inputs{likelihood}")
    for note in dict.fromkeys(metrics["probe_note"] for metrics in results.values() if "probe_note" in metrics):
        print(f"linear probe: {note}")


def _numbers(values: list[int]) -> str:
    return " or ".join(str(value) for value in values)


def _column(
    group: Group, models: dict[str, Trained], results: dict[str, dict[str, Any]], data: dict[str, Splits]
) -> Column:
    return Column(
        group,
        tuple(models[path] for path in group.paths),
        tuple(results[path] for path in group.paths),
        data[group.paths[0]],
    )
