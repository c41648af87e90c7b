"""A job in a folder here whose inputs are encoded by a service: the same plan, parts, errors and resumption."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import isolatent
from isolatent import _base, _questions
from isolatent._answers import Answer
from isolatent._chunks import Work
from isolatent._client import Client
from isolatent._errors import APIStatusError, InputError, IsolatentError
from isolatent._inputs import Item
from isolatent._questions import Question
from isolatent._wire import Call
from isolatent.types import Posterior
from isolatent_export import inputs as decoding
from isolatent_export.manifest import Manifest
from isolatent_serve.jobs import Counts, JobError, JobFolder, JobSpec
from isolatent_serve.jobs.folder import Job, Model, Progress, begin
from isolatent_serve.jobs.parts import Failure, Rows, save, shapes
from isolatent_serve.jobs.plan import inputs_of
from isolatent_serve.jobs.sources import Modality, open_items
from isolatent_serve.jobs.spec import digest_of

Columns = dict[str, NDArray[np.float32] | np.float32 | float]
"""Of one input."""
Content = tuple[str, bytes | decoding.InputError]
Stream = Generator[Columns | decoding.InputError, None, None]

_FACTS = ("id", "version", "created", "input", "latent", "family")
"""What makes a served model the same one."""
_OF_ITEMS = (413, 422)


class Served:
    """A model of a service, in the place of a bundle. Raises IsolatentError like the client, and InputError."""

    def __init__(self, client: Client, args: argparse.Namespace) -> None:
        self._client, self._concurrency = client, args.concurrency
        self._model = client.model(args.model) if args.model else _base.the_one(client.models())

    @property
    def modality(self) -> Modality:
        """What the model takes."""
        return cast(Modality, self._model.modality)

    @property
    def place(self) -> Path:
        """What stands in the job for the folder of a bundle."""
        return Path("/served", self._model.id)

    def begin(self, spec: JobSpec, path: Path) -> JobFolder:
        """A new job at `path`, or the one that is there when it is the same. Raises JobError naming what differs."""
        digest = digest_of({name: self._model.facts.get(name) for name in _FACTS})
        model = Model(
            name=self._model.id,
            version=self._model.version,
            digest=digest,
            preprocessing=digest_of(dict(self._model.input)),
        )
        settled = spec.model_dump(mode="json", exclude={"model", "device", "batch_items"}) | {"served model": digest}
        return begin(path, Job(isolatent=isolatent.__version__, spec=spec, settled=settled, model=model))

    def run(self, folder: JobFolder, on_progress: Callable[[Progress], None], stop: threading.Event) -> Counts:
        """Ask about the inputs of all shards that are not done yet, until `stop` is set; write each when it is whole.

        Raises JobError, and IsolatentError where other inputs would fare no better.
        """
        with folder.locked(), ExitStack() as stack:
            todo, counts = folder.todo(), folder.counts()
            streams = [stack.enter_context(closing(each)) for each in self._streams(folder, todo, stop)]
            for done, number in enumerate(todo, folder.shards - len(todo)):
                shard = _Shard(folder, number)
                for place in range(len(shard.inputs)):
                    if not shard.add(place, [next(stream, None) for stream in streams]):
                        return folder.counts()  # stopped
                    on_progress(Progress(counts, done, folder.shards, place + 1))
                counts += shard.save(self._manifest)
            return folder.counts()

    @property
    def _manifest(self) -> Manifest:
        """As much of the model's manifest as a part tells."""
        size, error = self._model.latent_size, self._model.facts.get("reconstruction_error")
        return cast(Manifest, SimpleNamespace(latent=SimpleNamespace(size=size), reconstruction_error=error))

    def _streams(self, folder: JobFolder, todo: list[int], stop: threading.Event) -> list[Stream]:
        """For each thing that is asked: what comes back for every input of the shards, in order."""
        spec, model = folder.spec, self._model.id
        asked: list[tuple[Question[Any], Callable[[Any], Columns]]] = [
            (_questions.posteriors(model), partial(_posterior, embedding="embedding" in spec.outputs))
        ]
        if "reconstruction_error" in spec.outputs:
            asked.append((_questions.reconstruction_errors(model), lambda error: {"reconstruction_error": error}))
        if "consistency" in spec.outputs:
            asked.append((_questions.consistencies(model, spec.samples), _consistency))
        return [self._stream(folder, todo, stop, *each) for each in asked]

    def _stream(
        self,
        folder: JobFolder,
        todo: list[int],
        stop: threading.Event,
        question: Question[Any],
        columns: Callable[[Any], Columns],
    ) -> Stream:
        """Requests go on across the ends of shards, so that some are always under way."""
        contents = _contents(folder, todo, stop)
        question = replace(question, item=_item, read=partial(_of_version, question.read, folder.job))
        work = Work(question, contents, folder.spec.batch_items, self._concurrency, "item")
        for _, result in self._client._driver.each(work):
            yield _failure(result) if isinstance(result, IsolatentError) else columns(result)


class _Shard:
    """What has come back for the inputs of one shard."""

    def __init__(self, folder: JobFolder, number: int) -> None:
        self.inputs = inputs_of(folder, number)
        self._folder, self._number = folder, number
        self._ids: list[str] = []
        self._rows: list[Columns] = []
        self._failures: list[Failure] = []

    def add(self, place: int, outcomes: list[Columns | decoding.InputError | None]) -> bool:
        """Keep what came back for an input; False when nothing did, as all was stopped."""
        if any(outcome is None for outcome in outcomes):
            return False
        name = self.inputs[place].id
        errors = [outcome for outcome in outcomes if isinstance(outcome, decoding.InputError)]
        if errors:
            index = self._folder.first(self._number) + place
            self._failures.append(Failure(name, index, errors[0].code, errors[0].detail))
            return True
        self._ids.append(name)
        self._rows.append(
            {name: value for found in outcomes if isinstance(found, dict) for name, value in found.items()}
        )
        return True

    def save(self, manifest: Manifest) -> Counts:
        """Write the part."""
        names = shapes(self._folder.job, manifest)
        columns = {name: self._column(name, shape) for name, shape in names.items()}
        save(self._folder, self._number, Rows(self._ids, columns), self._failures, manifest)
        return Counts(0, len(self._ids), len(self._failures))

    def _column(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return np.array([row[name] for row in self._rows], np.float32).reshape(len(self._rows), *shape)


class _UnreadableError(InputError):
    """An input that never reaches the service. `reason` is what reading it gave."""

    def __init__(self, reason: decoding.InputError) -> None:
        super().__init__(reason.detail)
        self.reason = reason


def _contents(folder: JobFolder, todo: list[int], stop: threading.Event) -> Iterator[Content]:
    """Names and contents of the inputs of these shards."""
    for number in todo:
        inputs = inputs_of(folder, number)
        locators = [each.locator for each in inputs]
        contents = open_items(locators, folder.spec.limits.sources, unpacked=folder.unpacked)
        for each, content in zip(inputs, contents, strict=True):
            if stop.is_set():
                return
            yield each.id, content


def _item(value: Any, index: int) -> Item:
    """What is sent of an input. Raises _UnreadableError."""
    name, content = value
    if not content:
        content = decoding.InputError("empty_input", "a file of 0 bytes; write it again, or leave it out")
    if isinstance(content, decoding.InputError):
        raise _UnreadableError(content)
    return Item(index, name, content)


def _of_version(read: Callable[[Answer, Call], Iterable[Any]], job: Job, answer: Answer, call: Call) -> Iterable[Any]:
    """What `read` finds in an answer. Raises JobError when another version of the model has given it."""
    results = read(answer, call)
    was, now = job.model.version, answer.safetensors[1].get("version", "")
    if now != was:
        what = f"the service has version {now} of {job.model.name} now, the job version {was}"
        raise JobError(f"{what}; begin with --fresh")
    return results


def _posterior(posterior: Posterior, *, embedding: bool) -> Columns:
    columns: Columns = {"mean": posterior.mean, "variance": posterior.variance, "kl": posterior.kl}
    return columns | ({"embedding": posterior.mean} if embedding else {})


def _consistency(row: NDArray[np.float32]) -> Columns:
    return {"consistency_kl": row[0], "consistency_normalized": row[1]}


def _failure(error: IsolatentError) -> decoding.InputError:
    """What is wrong with this one input. Raises `error` when it is not about the input alone."""
    if isinstance(error, _UnreadableError):
        return error.reason
    if isinstance(error, APIStatusError) and error.status in _OF_ITEMS and error.code:
        of_input = next((each for each in error.errors if each.index is not None), None)
        if of_input:
            return decoding.InputError(error.code, of_input.detail)
    raise error
