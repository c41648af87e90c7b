"""The section on point clouds of docs/benchmarks.md, from benchmarks/results/pointcloud-*.json; page.py adds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from machine import described


def sections(results: Path) -> list[str]:
    """The paragraphs for what has been measured, none if nothing has."""
    paths = {name: results / f"pointcloud-{name}.json" for name in _SECTIONS}
    found = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    if not found:
        return []
    parts = ["## Point clouds", "Run it again: `benchmarks/pointcloud.py serve` and `benchmarks/pointcloud.py train`."]
    for name, measured in found.items():
        parts += _SECTIONS[name](measured)
    return parts


def _serving(found: dict[str, Any]) -> list[str]:
    rates = found["clouds_per_second"]
    limit = max(each["median"] for name, each in rates.items() if "batches" in name)
    rows = [
        f"| {name} | {each['median']:,.0f} | {min(each['rounds']):,.0f} to {max(each['rounds']):,.0f} | "
        f"{each['median'] / limit:.2f} |"
        for name, each in rates.items()
    ]
    return [
        f"### Served: {found['bundle']}, clouds of {found['points']} points",
        f"{described(found)} `isolatent serve` with its defaults and the load on the same cores; answers in "
        "safetensors. The limit is ONNX Runtime alone, with the better of the batch sizes.",
        "\n".join(["| | clouds/s | rounds | share of the limit |", "| --- | --- | --- | --- |", *rows]),
    ]


def _training(found: dict[str, Any]) -> list[str]:
    settings = found["settings"]
    rows = [
        f"| {name} | {each['median']:,.0f} | {min(each['rounds']):,.0f} to {max(each['rounds']):,.0f} |"
        for name, each in found["clouds_per_second"].items()
    ]
    return [
        f"### Trained: recipe {settings['name']}",
        f"{described(found)} Updates of {settings['training']['batch_size']} clouds on {found['device']}, "
        f"{found['threads']} threads, {settings['training']['precision']}; the arm cr computes two views of each.",
        "\n".join(["| net, arm | clouds/s | rounds |", "| --- | --- | --- |", *rows]),
    ]


_SECTIONS = {"serving": _serving, "training": _training}
