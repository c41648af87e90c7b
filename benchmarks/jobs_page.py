"""The section on batch jobs of docs/benchmarks.md, from benchmarks/results/jobs-PART.json: page.py puts it there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from machine import described

_NAMES = {
    "limit": "decoding and ONNX Runtime, no job",
    "local": "`isolatent embed`",
    "ray": "`isolatent embed --engine ray`, its own cluster",
    "naive-ray": "Ray Data, written naively",
    "post": "the SDK posting to `isolatent serve`",
}


def sections(results: Path) -> list[str]:
    """The paragraphs for what has been measured, none if nothing has."""
    found = {part: json.loads(path.read_text()) for part, path in _paths(results).items() if path.exists()}
    if not found:
        return []
    text = "Files to results on the disk, from the start of a command to its end. Run it again: `benchmarks/jobs.py`."
    parts = ["## Batch jobs", text]
    for part, measured in found.items():
        parts += _SECTIONS[part](measured)
    return parts


def _paths(results: Path) -> dict[str, Path]:
    return {part: results / f"jobs-{part}.json" for part in _SECTIONS}


def _rates(found: dict[str, Any]) -> list[str]:
    rates = found["rates"]
    limit = rates.get("limit", {}).get("median")
    rows = [
        f"| {_NAMES[name]} | {each['median']:,.0f} | {min(each['rounds']):,.0f} to {max(each['rounds']):,.0f} | "
        + (f"{each['median'] / limit:.2f} |" if limit else "|")
        for name, each in rates.items()
    ]
    head = ["| | files/s | rounds | share of the limit |", "| --- | --- | --- | --- |"]
    return [
        f"### {found['items']:,} files: {found['data']}",
        f"{described(found)} Model {found['model']}, median of {found['rounds']} rounds.",
        "\n".join([*head, *rows]),
    ]


def _memory(found: dict[str, Any]) -> list[str]:
    rows = [f"| {job['items']:,} | {job['peak_mb']:,.0f} | {job['seconds']:.0f} |" for job in found["jobs"]]
    head = ["| files | most memory, MB | seconds |", "| --- | --- | --- |"]
    return [
        "### Memory of a job",
        f"{described(found)} `isolatent embed` with {found['processes']} processes, all of them together, pages that "
        "several share counted once.",
        "\n".join([*head, *rows]),
    ]


def _beside(found: dict[str, Any]) -> list[str]:
    rows = [
        f"| {number} | {row['idle']['p50']:.1f} / {row['idle']['p99']:.1f} | {row['job']['p50']:.1f} / "
        f"{row['job']['p99']:.1f} | {row['job']['p99'] / row['idle']['p99']:.2f} | {row['job_items']:,} |"
        for number, row in enumerate(found["rounds"], 1)
    ]
    head = [
        "| round | without a job, p50 / p99 ms | with one, p50 / p99 ms | p99, times | inputs the job had done |",
        "| --- | --- | --- | --- | --- |",
    ]
    return [
        "### A service that does a job",
        f"{described(found)} Single pictures offered open loop, {found['offered_per_second']:,.0f} requests/s for "
        f"{found['seconds']:g} s each, to the service idle otherwise and with a job running on the same "
        f"{found['cores']} cores. p99 with the job: {found['p99_ratio']['median']:.2f} times that without (median).",
        "\n".join([*head, *rows]),
    ]


_SECTIONS = {"images": _rates, "clouds": _rates, "memory": _memory, "beside": _beside}
