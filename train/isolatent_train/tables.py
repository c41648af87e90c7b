"""Metrics side by side as text: a column per model or arm, mean, deviation and 95 % interval over several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isolatent_train.evaluation.summary import Summary, summarize_metrics

ROWS = {
    "nll": ("NLL, nats (importance sampling)", 1.0, 2),
    "bits_per_dim": ("NLL, bits per dimension", 1.0, 3),
    "kl": ("KL to the prior, nats", 1.0, 2),
    "mutual_information": ("mutual information, nats", 1.0, 2),
    "active_units": ("active units", 1.0, 1),
    "reconstruction_mse": ("reconstruction error, mse", 1.0, 4),
    "chamfer": ("reconstruction error, Chamfer", 1.0, 4),
    "probe_accuracy": ("linear probe, %", 100.0, 1),
    "probe_accuracy_untrained": ("linear probe, untrained encoder, %", 100.0, 1),
    "consistency_kl": ("consistency KL, nats", 1.0, 2),
    "consistency_kl_normalized": ("consistency KL, normalised", 1.0, 3),
    "consistency_w2_normalized": ("consistency W2, normalised", 1.0, 3),
    "retrieval_top1": ("retrieval of the original, %", 100.0, 1),
}
"""Metric: its label, the factor it is printed with, and its decimals."""


def metrics_table(columns: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A Markdown table of the metrics of each column, which holds one or more evaluations (seeds)."""
    lines = table_lines(columns)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def table_lines(columns: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """The table's cells, line by line, the first being the header. "-" stands for a figure that there is none of."""
    summaries = [summarize_metrics(column) for column in columns.values()]
    lines = [["metric", *columns]]
    known = {name for column in columns.values() for each in column for name in each}
    for metric, (label, factor, decimals) in ROWS.items():
        if metric not in known:
            continue  # of another modality
        lines.append([label, *(_cell(each.get(metric), factor, decimals) for each in summaries)])
    return lines


def _cell(summary: Summary | None, factor: float, decimals: int) -> str:
    if summary is None:
        return "-"
    text = f"{summary.mean * factor:.{decimals}f}"
    if summary.std is None or summary.low is None or summary.high is None:
        return text
    low, high = (f"{bound * factor:.{decimals}f}" for bound in (summary.low, summary.high))
    return f"{text} ± {summary.std * factor:.{decimals}f} [{low}, {high}]"
