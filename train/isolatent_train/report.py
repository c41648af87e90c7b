"""One HTML file that says what was compared, what was measured and what it looks like; it needs no other file.

Everything in it that comes from a run (names, paths, settings) is escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from isolatent_train import grids
from isolatent_train.data import Splits
from isolatent_train.evaluation.displacements import KINDS, Kind
from isolatent_train.evaluation.encoding import device_of, posteriors
from isolatent_train.evaluation.metrics import reconstruction_errors
from isolatent_train.evaluation.strengths import EXAMPLES, Movement, movements
from isolatent_train.evaluation.summary import Group, differing
from isolatent_train.reporting import figures
from isolatent_train.reporting.style import colour, png_uri, svg_uri
from isolatent_train.run import Trained, write_atomically
from isolatent_train.tables import table_lines

SHOWN = 12
"""Pictures in a row."""

CELL, SMALL_CELL = 44, 32
"""Width of one picture on the page, in CSS pixels, at least; and in the traversals, which go beside each other."""

TEMPLATES = Path(__file__).parent / "reporting"


@dataclass(frozen=True)
class Column:
    """One column of the comparison: models that differ in the seed only, their metrics, and the data of them all."""

    group: Group
    models: tuple[Trained, ...]
    metrics: tuple[dict[str, Any], ...]
    splits: Splits


@torch.inference_mode()
def write_report(columns: Sequence[Column], path: Path, *, data: str | None, machine: dict[str, str]) -> None:
    """Write the report `path`; `data` is the specification that replaced the models' own data. Raises OSError."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    by_label = {column.group.label: column.metrics for column in columns}
    header, *lines = table_lines(by_label)
    page = environment.get_template("report.html").render(
        css=Markup((TEMPLATES / "report.css").read_text()),
        legend=[(column.group.label, colour(index)) for index, column in enumerate(columns)],
        header=header,
        lines=lines,
        seeds=max(len(column.models) for column in columns),
        notes=_notes(columns),
        differences=_differences(columns),
        settings=[(column.group.label, column.group.settings) for column in columns],
        runs=[_run_facts(column, index, data) for column in columns for index in range(len(column.models))],
        counts=_counts(columns),
        losses=_losses(columns),
        strengths=svg_uri(figures.strength_curves(_curves(columns), _kinds(columns), _trained_strengths(columns))),
        examples=max(curves["examples"] for column in _curves(columns) for curves in column),
        histograms=_histograms(columns),
        shown=[_of_column(column, index) for index, column in enumerate(columns)],
        machine=machine,
    )
    write_atomically(path, page.encode())


def _differences(columns: Sequence[Column]) -> list[tuple[str, list[str]]]:
    rows = differing([column.group for column in columns])
    return [(key, ["-" if value is None else str(value) for value in values]) for key, values in rows.items()]


def _notes(columns: Sequence[Column]) -> list[str]:
    notes = {
        f"{column.group.label}: linear probe: {metrics['probe_note']}": None
        for column in columns
        for metrics in column.metrics
        if "probe_note" in metrics
    }
    return list(notes)


def _run_facts(column: Column, index: int, data: str | None) -> dict[str, Any]:
    trained = column.models[index]
    return {
        "label": column.group.label,
        "path": column.group.paths[index],
        "name": trained.config.name,
        "seed": trained.config.seed,
        "epochs": trained.training.epochs,
        "updates": trained.training.updates,
        "revision": (trained.training.git_revision or "unknown")[:12],
        "data": trained.config.data.spec if data is None else f"{data} (trained on {trained.config.data.spec})",
    }


def _counts(columns: Sequence[Column]) -> list[dict[str, Any]]:
    keys = ("test_examples", "nll_samples", "probe_train_examples")
    return [
        {"label": column.group.label, "splits": column.splits.counts(), "seeds": list(column.group.seeds)}
        | {key: column.metrics[0].get(key) for key in keys}
        for column in columns
    ]


def _losses(columns: Sequence[Column]) -> str | None:
    histories = [[figures.read_history(trained.path) for trained in column.models] for column in columns]
    figure = figures.loss_curves(histories)
    return None if figure is None else svg_uri(figure)


def _curves(columns: Sequence[Column]) -> list[list[dict[str, Any]]]:
    return [[metrics["consistency_by_strength"] for metrics in column.metrics] for column in columns]


def _kinds(columns: Sequence[Column]) -> dict[str, Kind]:
    return KINDS[columns[0].splits.spec.modality]


def _trained_strengths(columns: Sequence[Column]) -> dict[str, list[float]]:
    """Strengths the models were trained with, where the plot reaches that far."""
    used = [each for column in columns for each in column.models[0].config.transforms]
    found = {name: {kind.setting(each) for each in used} - {None, 0} for name, kind in _kinds(columns).items()}
    return {name: sorted(v for v in found[name] if v and v <= k.strengths[-1]) for name, k in _kinds(columns).items()}


def _histograms(columns: Sequence[Column]) -> list[str]:
    moved = [_moved(column.models[0], column.splits) for column in columns]
    bins = figures.histogram_bins(moved)
    return [svg_uri(figures.histograms(each, _kinds(columns), bins)) for each in moved]


def _moved(trained: Trained, splits: Splits) -> dict[str, list[Movement]]:
    """Movement of single inputs at the weakest, the middle and the strongest transformation of each kind."""
    moved = {}
    for name, kind in KINDS[splits.spec.modality].items():
        strengths = (kind.strengths[0], kind.strengths[len(kind.strengths) // 2], kind.strengths[-1])
        inputs = splits.test.inputs[:EXAMPLES]
        moved[name] = movements(trained.model, inputs, kind, strengths, trained.config.transforms)
    return moved


def _of_column(column: Column, index: int) -> dict[str, Any]:
    """Pictures of a column's first model."""
    trained, inputs = column.models[0], column.splits.test.inputs
    model, likelihood, device = trained.model, trained.likelihood, device_of(trained.model)
    few, some = inputs[:SHOWN].to(device), inputs[:EXAMPLES].to(device)
    posterior = posteriors(model, some)
    errors = reconstruction_errors(model, likelihood, some, posterior)
    deviations = posterior.std.mean(1)
    order = deviations.argsort()
    ends = {"surest": some[order[:SHOWN]], "least": some[order.flip(0)[:SHOWN]]}
    return {
        "label": column.group.label,
        "colour": colour(index),
        "seed": trained.config.seed,
        "path": column.group.paths[0],
        "reconstructions": _picture(grids.reconstructions(model, likelihood, few)),
        "samples": _picture(grids.samples(model, likelihood, rows=3, columns=SHOWN, device=device)),
        "traversals": _picture(grids.traversal(model, likelihood, posterior.mean), cell=SMALL_CELL),
        "certainty": svg_uri(figures.certainty(errors, deviations, index)),
        "correlation": figures.rank_correlation(errors, deviations),
        **{end: _picture(grids.reconstructions(model, likelihood, ones)) for end, ones in ends.items()},
    }


def _picture(rows: Sequence[Any], *, cell: int = CELL) -> dict[str, Any]:
    """A grid as a data URI, and how wide it is shown: whole multiples of its pixels."""
    uri, width, _ = png_uri(rows)
    return {"uri": uri, "width": width * max(1, -(-cell // rows[0].shape[2]))}
