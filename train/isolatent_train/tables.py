"""Metrics side by side as text: a column per model or arm, mean and standard deviation over several seeds."""

from __future__ import annotations

import statistics
from typing import Any

ROWS = {
    "nll": ("NLL, nats (importance sampling)", 1.0, 2),
    "kl": ("KL to the prior, nats", 1.0, 2),
    "mutual_information": ("mutual information, nats", 1.0, 2),
    "active_units": ("active units", 1.0, 1),
    "reconstruction_mse": ("reconstruction error, mse", 1.0, 4),
    "probe_accuracy": ("linear probe, %", 100.0, 1),
    "probe_accuracy_untrained": ("linear probe, untrained encoder, %", 100.0, 1),
    "consistency_kl": ("consistency KL, nats", 1.0, 2),
    "consistency_kl_normalized": ("consistency KL, normalised", 1.0, 3),
    "consistency_w2_normalized": ("consistency W2, normalised", 1.0, 3),
    "retrieval_top1": ("retrieval of the original, %", 100.0, 1),
}
"""Metric: its label, the factor it is printed with, and its decimals."""


def metrics_table(columns: dict[str, list[dict[str, Any]]]) -> str:
    """A Markdown table of the metrics of each column, which holds one or more evaluations (seeds)."""
    lines = [["metric", *columns]]
    for metric, (label, factor, decimals) in ROWS.items():
        cells = [_cell([float(e[metric]) * factor for e in column], decimals) for column in columns.values()]
        lines.append([label, *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def _cell(values: list[float], decimals: int) -> str:
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{decimals}f}"
