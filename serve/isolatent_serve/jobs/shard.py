"""One shard: its inputs are read, decoded, encoded in batches of a fixed composition, and written as one part.

A batch has a row for each of its inputs, the bad ones too: what an input gives does not depend on its neighbours.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from isolatent_export import BundleError
from isolatent_export.inputs import InputError, decode_item
from isolatent_export.outputs import finite
from isolatent_export.verify import load_verified
from isolatent_serve import consistency, parser, parsing, results
from isolatent_serve.inputs import stacked
from isolatent_serve.isolation import needs_process
from isolatent_serve.jobs.confinement import Confinement
from isolatent_serve.jobs.folder import Counts, JobFolder
from isolatent_serve.jobs.parts import Failure, Rows, save
from isolatent_serve.jobs.plan import inputs_of
from isolatent_serve.jobs.sources import Input, Reader
from isolatent_serve.jobs.spec import JobError, JobSpec
from isolatent_serve.outputs import Array, Compute, Graphs, Tensors, posterior, reconstruction
from isolatent_serve.problems import Problem

ELSEWHERE = -1
"""Place that is beaten while no input is in hand: the shard is being encoded or written."""

Beat = Callable[[int], None]
"""Told the place in its shard of the input that is about to be read, or ELSEWHERE."""

Blamed = Mapping[int, InputError]
"""Place in its shard -> what is wrong with an input that must not be touched any more."""

Outcomes = Iterator[Array | InputError]

_READ_WITHOUT = frozenset({".npy", ".npz", ".ply", ".pts", ".stl", ".xyz"})
"""Endings of names that files have which are read without other packages than numpy, mostly."""


class Encoder:
    """A verified model in this process: files become arrays, and arrays posteriors. Open it once, for many shards."""

    def __init__(self, spec: JobSpec, *, threads: int = 1) -> None:
        """`threads` cores are used at a time. Raises JobError when the bundle is not there or not what it was."""
        bundle = spec.bundle()
        self.spec = spec
        self.manifest = bundle.manifest
        self.digest = spec.model_digest()
        self._limits = spec.limits.inputs
        self._reader: tuple[Path, Reader] | None = None
        self._confinement = Confinement(spec.limits.parse_megabytes)
        self._has_readers = False
        try:
            self._runtime = load_verified(bundle, device=spec.device, threads=threads)
            self._compute = _computation(spec)
            self._blank = self._compute(self._runtime, self.batch(1))  # says what is missing before the first input
        except BundleError as error:
            raise JobError(str(error)) from None
        except Problem as problem:
            raise JobError(f"{problem.detail}, or leave out consistency") from None

    def expect(self, inputs: list[Input]) -> None:
        """Import what such files are read with, before each of them has its share of memory; it takes half a second."""
        if not self._has_readers and any(Path(each.id).suffix.lower() not in _READ_WITHOUT for each in inputs):
            self._has_readers = True
            with contextlib.suppress(ImportError):  # without the extra `clouds`, files that need it say so
                parser.import_readers([self.manifest.modality])

    @property
    def batch_items(self) -> int:
        """Inputs per batch: fewer than asked for where they would take more memory than they may."""
        each = self.batch(1).nbytes
        return max(1, min(self.spec.batch_items, self._limits.decoded_bytes // each))

    def reader(self, unpacked: Path) -> Reader:
        """What reads items. Archives stay open from one shard to the next."""
        if self._reader is None or self._reader[0] != unpacked:
            reader = Reader(self.spec.limits.sources, unpacked)
            self._reader = (unpacked, reader)
            weakref.finalize(self, reader.close)
        return self._reader[1]

    def decode(self, data: bytes) -> Array:
        """A file as the array of shape `manifest.input.shape`. Raises InputError, whatever is wrong with it."""
        spec = self.manifest.input
        try:
            if not needs_process(data, spec, self._limits):
                return decode_item(data, spec, self._limits)
            with self._confinement:
                return decode_item(data, spec, self._limits)
        except Exception as error:
            if parser.is_shortage(error):
                raise self.failure("parser_memory") from None
            if isinstance(error, InputError):
                raise
            raise self.failure("parser_crashed") from None

    def failure(self, code: str) -> InputError:
        """What to say of an input whose reader crashed, took too long or too much memory."""
        limits = self.spec.limits
        return parsing.failure(code, self.manifest.modality, limits.parse_seconds, limits.parse_megabytes)

    def encode(self, items: Array) -> tuple[Tensors, dict[int, InputError]]:
        """The columns (N, ...) float32 for items (N, ...), and what is wrong with rows that have no answer."""
        try:
            with np.errstate(all="ignore"):  # infinities are found below
                columns = self._compute(_Once(self._runtime), items)
        except Problem as problem:
            raise JobError(problem.detail) from None
        except Exception:  # ONNX Runtime has an exception class per status code, with no common base
            self._runtime.prove()
            return self._encode_singly(items)
        overflown = np.flatnonzero(~finite(columns)).tolist()
        return columns, dict.fromkeys(overflown, results.NON_FINITE)

    def _encode_singly(self, items: Array) -> tuple[Tensors, dict[int, InputError]]:
        """One row at a time, after they failed together: the bad ones fail alone."""
        if len(items) == 1:
            refused = InputError("internal", "the model fails on this input; export the model again, or leave it out")
            return self._blank, {0: refused}
        singly = [self.encode(items[row : row + 1]) for row in range(len(items))]
        columns = {name: np.concatenate([each[name] for each, _ in singly]) for name in singly[0][0]}
        return columns, {row: errors[0] for row, (_, errors) in enumerate(singly) if errors}

    def batch(self, count: int) -> Array:
        """Room for `count` items, zeros."""
        return np.zeros((count, *self.manifest.input.shape), stacked([], self.manifest.input).dtype)


def run_shard(
    folder: JobFolder, number: int, encoder: Encoder, beat: Beat | None = None, blamed: Blamed | None = None
) -> Counts:
    """Read, compute and write shard `number`, one that is done as well. Equal inputs give equal bytes.

    `beat` hears which input is next. Raises JobError when the model is not that of the job, and OSError when the part
    cannot be written; what is wrong with an input goes among the errors.
    """
    if encoder.digest != folder.job.model.digest:
        raise JobError(f"{encoder.spec.model}: not the model that the job began with; put it back, or begin afresh")
    inputs, size = inputs_of(folder, number), encoder.batch_items
    beat = beat or _ignore
    outcomes = _outcomes(folder, inputs, encoder, beat, blamed or {})
    kept: list[int] = []
    parts: list[Tensors] = []
    errors: dict[int, InputError] = {}
    for start in range(0, len(inputs), size):
        count = min(size, len(inputs) - start)
        items = encoder.batch(count)
        bad: dict[int, InputError] = {}
        for row, outcome in enumerate(islice(outcomes, count)):
            if isinstance(outcome, InputError):
                bad[row] = outcome
            else:
                items[row] = outcome
        beat(ELSEWHERE)
        columns, unanswered = encoder.encode(items)
        bad = unanswered | bad
        good = [row for row in range(count) if row not in bad]
        kept += [start + row for row in good]
        parts.append({name: values[good] for name, values in columns.items()} if bad else columns)
        errors |= {start + row: error for row, error in bad.items()}
    rows = Rows([inputs[place].id for place in kept], _joined(parts))
    first = folder.first(number)
    failures = [
        Failure(inputs[place].id, first + place, error.code, error.detail) for place, error in sorted(errors.items())
    ]
    save(folder, number, rows, failures, encoder.manifest)
    return Counts(len(inputs), len(rows.ids), len(failures))


def try_one(folder: JobFolder, number: int, place: int, encoder: Encoder, beat: Beat) -> None:
    """Read and decode one input of a shard, and nothing else: to see whether it is what ends processes."""
    alone = [inputs_of(folder, number)[place]]
    for _ in _outcomes(folder, alone, encoder, lambda at: beat(at if at == ELSEWHERE else place), {}):
        pass


def _outcomes(folder: JobFolder, inputs: list[Input], encoder: Encoder, beat: Beat, blamed: Blamed) -> Outcomes:
    """Each input as an array, or what is wrong with it, in order."""
    encoder.expect(inputs)
    reader = encoder.reader(folder.unpacked)
    contents = reader.items(each.locator for place, each in enumerate(inputs) if place not in blamed)
    for place in range(len(inputs)):
        if place in blamed:
            yield blamed[place]
            continue
        if inputs[place].locator.kind == "row":
            beat(ELSEWHERE)  # what comes before it in its table is not its fault
            reader.approach(inputs[place].locator)
        beat(place)
        content = next(contents)
        try:
            yield content if isinstance(content, InputError) else encoder.decode(content)
        except InputError as error:
            yield error


def _computation(spec: JobSpec) -> Compute:
    """The columns of a job as one computation. Raises Problem `consistency_unavailable`, and BundleError."""
    bundle = spec.bundle()
    moved = consistency.of(bundle, spec.samples) if "consistency" in spec.outputs else None
    if moved:
        consistency.remember(bundle)

    def compute(graphs: Graphs, items: Array) -> Tensors:
        columns = posterior(graphs, items)
        if "embedding" in spec.outputs:
            columns["embedding"] = columns["mean"]
        if "reconstruction_error" in spec.outputs:
            columns["reconstruction_error"] = reconstruction(graphs, items)["error"]
        if moved:
            columns |= {f"consistency_{name}": values for name, values in moved(graphs, items).items()}
        return columns

    return compute


class _Once:
    """Graphs that encode the same items once, however many outputs are made of them."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._last: tuple[Array, tuple[Array, Array]] | None = None

    def encode(self, items: Array) -> tuple[Array, Array]:
        """As the graphs do."""
        if self._last is None:
            self._last = items, self._graphs.encode(items)
        return self._last[1] if self._last[0] is items else self._graphs.encode(items)

    def decode(self, latents: Array) -> Array:
        """As the graphs do."""
        return self._graphs.decode(latents)


def _joined(parts: list[Tensors]) -> Tensors:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _ignore(_place: int) -> None:
    pass
