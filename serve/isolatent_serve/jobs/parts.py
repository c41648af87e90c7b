"""Writing the results of a shard: Parquet, JSON lines or NumPy arrays. Equal rows give equal bytes.

A new format is one function, one entry in `_WRITERS` and one suffix in folder.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from isolatent_export.manifest import Manifest
from isolatent_serve.jobs.folder import Job, JobFolder, written
from isolatent_serve.jobs.spec import Format
from isolatent_serve.outputs import Array, Shapes, Tensors

UNITS = {
    "mean": "of q(z|x), one number per latent variable",
    "variance": "of q(z|x), one number per latent variable",
    "kl": "KL(q(z|x) || N(0, I)) in nats",
    "embedding": "the posterior mean",
    "consistency_kl": "mean KL(q(z|x~) || q(z|x)) over transformed copies x~, in nats",
    "consistency_normalized": "consistency_kl divided by the mean KL between different inputs",
}
"""Column -> what its numbers are; the manifest tells that of `reconstruction_error`."""


@dataclass(frozen=True)
class Rows:
    """The inputs of a shard that succeeded: `ids` (N,), and columns (N, ...) float32 by name, in order."""

    ids: list[str]
    columns: Tensors


@dataclass(frozen=True)
class Failure:
    """An input that failed: its place in the whole job, the code and the reason."""

    id: str
    index: int
    code: str
    detail: str


def shapes(job: Job, manifest: Manifest) -> Shapes:
    """Column -> shape of one row, in the order in which they are written."""
    size, outputs = manifest.latent.size, job.spec.outputs
    found: Shapes = {"mean": (size,), "variance": (size,), "kl": ()}
    if "embedding" in outputs:
        found["embedding"] = (size,)
    if "reconstruction_error" in outputs:
        found["reconstruction_error"] = ()
    if "consistency" in outputs:
        found |= {"consistency_kl": (), "consistency_normalized": ()}
    return found


def save(folder: JobFolder, number: int, rows: Rows, failures: list[Failure], manifest: Manifest) -> None:
    """Write what became of a shard: errors first, as the part says that the shard is done."""
    errors = folder.errors(number)
    if failures:
        errors.parent.mkdir(exist_ok=True)
        with written(errors) as file:
            file.writelines(json.dumps(vars(failure), ensure_ascii=False).encode() + b"\n" for failure in failures)
    else:
        errors.unlink(missing_ok=True)  # of a run that ended before the part was written
    with written(folder.part(number), settled=False) as file:  # at worst it is computed again
        _WRITERS[folder.spec.format](file, rows, folder.job, manifest)


def metadata(job: Job, manifest: Manifest) -> dict[str, Any]:
    """What a part says about itself: where the numbers come from and what they are."""
    units = UNITS | {"reconstruction_error": manifest.reconstruction_error}
    return {
        "isolatent": job.isolatent,
        "model": job.model.name,
        "version": job.model.version,
        "model_digest": job.model.digest,
        "preprocessing_digest": job.model.preprocessing,
        "outputs": list(job.spec.outputs),
        "units": {name: units[name] for name in shapes(job, manifest)},
    }


def _parquet(file: BinaryIO, rows: Rows, job: Job, manifest: Manifest) -> None:
    """id, lists of a fixed size for vectors, float for numbers; metadata as JSON under the key `isolatent`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: _arrow(rows.columns[name], shape) for name, shape in shapes(job, manifest).items()}
    table = pa.table({"id": pa.array(rows.ids, pa.string()), **columns})
    about = json.dumps(metadata(job, manifest), sort_keys=True)
    # Neither dictionaries nor statistics say anything about numbers that are all different.
    pq.write_table(table.replace_schema_metadata({"isolatent": about}), file, use_dictionary=False)


def _arrow(column: Array, shape: tuple[int, ...]) -> Any:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(column, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, shape[0]) if shape else flat


def _jsonl(file: BinaryIO, rows: Rows, job: Job, manifest: Manifest) -> None:
    """One object per row, numbers as the shortest text that reads back to the same float32."""
    import orjson

    names = list(shapes(job, manifest))
    columns = [np.ascontiguousarray(rows.columns[name], np.float32) for name in names]
    for place, name in enumerate(rows.ids):
        row = {"id": name} | {column: values[place] for column, values in zip(names, columns, strict=True)}
        file.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))


def _npz(file: BinaryIO, rows: Rows, job: Job, manifest: Manifest) -> None:
    """`ids` and one array per column, float32. np.load reads it without pickles."""
    columns = {name: np.ascontiguousarray(rows.columns[name], np.float32) for name in shapes(job, manifest)}
    np.savez(file, ids=np.array(rows.ids, dtype=np.str_), **columns)  # type: ignore[arg-type]


_WRITERS: dict[Format, Callable[[BinaryIO, Rows, Job, Manifest], None]] = {
    "parquet": _parquet,
    "jsonl": _jsonl,
    "npy": _npz,
}
