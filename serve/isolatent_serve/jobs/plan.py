"""Which inputs a job has, and which part each belongs to: listed once, then followed whatever happens to the inputs.

Listing streams: what is in memory is one shard, or as many as make a small job. Ids are compared in a database on disk.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

import orjson

import isolatent
from isolatent_serve import consistency
from isolatent_serve.jobs import folder as files
from isolatent_serve.jobs.disk import sync
from isolatent_serve.jobs.folder import Job, JobFolder, Model, Plan, begin, written
from isolatent_serve.jobs.sources import Input, Locator, Modality, Skipped, SourceError, list_inputs
from isolatent_serve.jobs.spec import JobError, JobSpec, digest_of
from isolatent_serve.problems import Problem

MOST_ITEMS = 1024
"""Inputs per shard of a large job."""
LEAST_ITEMS = 64
SHARDS = 32
"""Shards of a job that is not large, when it has enough inputs: so that many processes share it evenly."""

OnListed = Callable[[int], None]
"""Told how many inputs have been found so far."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The job was asked to stop; it goes on from where it is when it is run again."""


def prepare(spec: JobSpec, path: Path) -> JobFolder:
    """The job at `path`, planned: a new one, or the one that is there when it is the same.

    Raises JobError: a bad bundle, no inputs, equal ids, or another job at `path`, naming the difference.
    """
    folder = create(spec, path)
    plan(folder)
    return folder


def create(spec: JobSpec, path: Path) -> JobFolder:
    """Like `prepare`, but nothing is listed yet."""
    bundle = spec.bundle()
    if "consistency" in spec.outputs:
        try:
            consistency.of(bundle, spec.samples)
        except Problem as problem:
            raise JobError(f"{problem.detail}, or leave out consistency") from None
    manifest = bundle.manifest
    settled = spec.settled()
    preprocessing = digest_of(manifest.input.model_dump(mode="json"))
    model = Model(name=manifest.name, version=manifest.version, digest=settled["model"], preprocessing=preprocessing)
    return begin(path, Job(isolatent=isolatent.__version__, spec=spec, settled=settled, model=model))


def plan(
    folder: JobFolder,
    *,
    on_listed: OnListed | None = None,
    stop: threading.Event | None = None,
    modality: Modality | None = None,
) -> None:
    """List the inputs into the shards of `folder`, unless that was done. Raises JobError, and Stopped.

    `modality` is that of a model whose bundle is elsewhere.
    """
    if not folder.planned:
        with folder.locked():
            _plan(folder, on_listed, stop, modality)


def inputs_of(folder: JobFolder, number: int) -> list[Input]:
    """The inputs of a shard in order. Raises JobError when the plan is damaged."""
    path = folder.inputs_file(number)
    try:
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        found = [Input(name, Locator(*locator)) for name, locator in rows]
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise JobError(f"{path}: not the plan that was written ({reason}); begin afresh in a new folder") from None
    if len(found) != folder.size(number):
        raise JobError(f"{path}: {len(found)} inputs, planned were {folder.size(number)}; begin afresh in a new folder")
    return found


def _plan(
    folder: JobFolder, on_listed: OnListed | None, stop: threading.Event | None, modality: Modality | None
) -> None:
    if folder.planned:  # by another process, before this one had the lock
        return
    unfinished = folder.path / f"{files.PLAN}{files.UNFINISHED}"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that ended in the middle
    unfinished.mkdir()
    try:
        _write(folder, unfinished, modality or folder.spec.bundle().manifest.modality, on_listed, stop)
    except SourceError as error:
        raise JobError(str(error)) from None
    except sqlite3.Error as error:
        raise JobError(f"{unfinished}: cannot be written ({error}); make room, then run it again") from None
    unfinished.replace(folder.path / files.PLAN)
    sync(folder.path)


def _write(
    folder: JobFolder, path: Path, modality: Modality, on_listed: OnListed | None, stop: threading.Event | None
) -> None:
    total = shards = 0
    spec, skipped = folder.spec, Skipped()
    found = list_inputs(
        spec.inputs,
        column=spec.column,
        limits=spec.limits.sources,
        modality=modality,
        unpack=folder.unpacked,
        skipped=skipped,
        check=partial(_require_unstopped, stop),
    )
    with _distinct(path) as require_new:
        size, inputs = (spec.shard_items, found) if spec.shard_items else _good_size(found)
        for shard in _shards(inputs, size):
            require_new(total, shard)
            with written(path / folder.inputs_file(shards).name, settled=False) as file:
                file.writelines(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in shard)
            total, shards = total + len(shard), shards + 1
            if on_listed:
                on_listed(total)
    if not total:
        raise JobError(f"no inputs in {', '.join(spec.inputs)[:200]}; name files, folders or archives that hold some")
    plan = Plan(total=total, shards=shards, shard_items=size, skipped=dict(skipped.counts))
    with written(path / files.INDEX) as file:
        file.write(plan.model_dump_json().encode())


def _require_unstopped(stop: threading.Event | None) -> None:
    """Raise Stopped when that was asked for."""
    if stop and stop.is_set():
        raise Stopped


def _good_size(inputs: Iterator[Input]) -> tuple[int, Iterator[Input]]:
    """Inputs per shard, by their number alone: the same on every machine. And all the inputs."""
    first = list(islice(inputs, SHARDS * MOST_ITEMS))
    return min(MOST_ITEMS, max(LEAST_ITEMS, -(-len(first) // SHARDS))), chain(first, inputs)


def _shards(inputs: Iterator[Input], size: int) -> Iterator[list[Input]]:
    while shard := list(islice(inputs, size)):
        yield shard


@contextlib.contextmanager
def _distinct(path: Path) -> Iterator[Callable[[int, list[Input]], None]]:
    """What refuses ids that were there before, given the place of the first of some more inputs.

    A database, as the ids of a large job would not fit into memory.
    """
    file = path / "ids.sqlite"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;")
        database.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, place INTEGER) WITHOUT ROWID")

        def require_new(start: int, inputs: list[Input]) -> None:
            database.execute("BEGIN")
            for place, each in enumerate(inputs, start):
                try:
                    database.execute("INSERT INTO ids VALUES (?, ?)", (each.id, place))
                except sqlite3.IntegrityError:
                    (first,) = database.execute("SELECT place FROM ids WHERE id = ?", (each.id,)).fetchone()
                    raise JobError(_twice(each.id, first, place)) from None
            database.execute("COMMIT")

        yield require_new
    file.unlink()


def _twice(name: str, first: int, second: int) -> str:
    return (
        f"two inputs have the id {name[:200]!r} (numbers {first} and {second}), and results are told apart by ids; "
        f"name each input once, or a folder above both"
    )
