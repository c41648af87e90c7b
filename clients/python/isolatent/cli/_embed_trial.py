"""What a job would do, and its first inputs tried: `isolatent embed --dry-run`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from isolatent_serve.jobs import JobFolder
from isolatent_serve.jobs.folder import INDEX, PLAN, Plan, written
from isolatent_serve.jobs.plan import inputs_of

_SHOWN = 5
_TRIED = 100
"""Inputs that are computed, and their results thrown away."""


def look(folder: JobFolder, run: Callable[[JobFolder], object]) -> dict[str, Any]:
    """Facts about a planned job, which is cut down to its first inputs so that `run` can try these. Raises JobError."""
    plan, spec = folder.plan, folder.spec
    short = _cut(folder)
    run(short)
    return {
        "inputs": plan.total,
        "parts": plan.shards,
        "part_inputs": min(plan.shard_items, plan.total),
        "model": f"{folder.job.model.name} {folder.job.model.version}",
        "outputs": list(spec.outputs),
        "format": spec.format,
        "first": [each.id for each in inputs_of(short, 0)[:_SHOWN]],
        "skipped": plan.skipped,
        "tried": short.plan.total,
        "refused": dict(_refused(short)),
    }


def words(found: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    yield f"{found['inputs']} inputs in {found['parts']} parts of {found['part_inputs']}, {found['format']}"
    yield f"model {found['model']}: {', '.join(found['outputs'])}"
    for name in found["first"]:
        yield f"  {name}"
    if found["inputs"] > len(found["first"]):
        yield "  ..."
    for reason, count in found["skipped"].items():
        yield f"skipped {count}: {reason}"
    if "done" in found:
        yield f"{found['done']} parts are there already"
    yield f"tried the first {found['tried']}: {len(found['refused'])} would be refused"
    for name, reason in found["refused"].items():
        yield f"  {name}: {reason}"


def _cut(folder: JobFolder) -> JobFolder:
    """The same job with the first inputs alone."""
    size = folder.plan.shard_items
    total = min(_TRIED, folder.plan.total)
    shards = -(-total // size)
    last = folder.inputs_file(shards - 1)
    lines = last.read_bytes().splitlines(keepends=True)[: total - (shards - 1) * size]
    last.write_bytes(b"".join(lines))
    with written(folder.path / PLAN / INDEX) as file:
        file.write(Plan(total=total, shards=shards, shard_items=size).model_dump_json().encode())
    return JobFolder(folder.path)


def _refused(folder: JobFolder) -> Iterator[tuple[str, str]]:
    for number in range(folder.shards):
        if folder.errors(number).exists():
            for line in folder.errors(number).read_bytes().splitlines():
                facts = json.loads(line)
                yield facts["id"], f"{facts['code']}: {facts['detail']}"
