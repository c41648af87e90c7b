"""From a source's arrays to Splits: checks, drawing of parts, the section's specification and limit.

A source reads its files and calls, in this order, `labelled` on its arrays, `hold_out` or `split` where the files fix
no parts, and `finish`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isolatent_export.manifest import InputSpec
from isolatent_train.config import DataSection
from isolatent_train.data.forms import IMAGES, Form, form_of
from isolatent_train.data.splits import DataError, Labelled, Rejected, Splits
from isolatent_train.streams import stream

FEWEST = 10
"""Fewer inputs than this are not worth splitting into three parts."""


def labelled(inputs: NDArray[Any], labels: NDArray[Any] | None, what: str, form: Form = IMAGES) -> Labelled:
    """Arrays of inputs (N, ...) of a form and of labels (N,) or (N, 1), integers. Raises DataError naming `what`."""
    checked = _tensor(form.checked(inputs, what))
    if labels is None:
        return Labelled(checked, None)
    if labels.shape not in ((len(inputs),), (len(inputs), 1)):
        raise DataError(
            f"{what}: labels of shape {labels.shape} for {len(inputs)} {form.noun}s; store one label per {form.noun}"
        )
    return Labelled(checked, _tensor(labels.reshape(-1).astype(np.int64)))


def name_labels(*labels: NDArray[Any] | None, what: str) -> tuple[list[NDArray[np.int64] | None], tuple[str, ...]]:
    """Labels of several parts, numbers or words, counted from 0 in sorted order, and their names.

    Raises DataError when some parts have labels and others none, or on labels of another type or shape.
    """
    stored = [part for part in labels if part is not None]
    if len(stored) != len(labels):
        raise DataError(f"{what}: labels for some parts only; store them for all, or for none")
    for part in stored:
        if part.ndim > 1 and part.shape[1:] != (1,):
            raise DataError(
                f"{what}: labels must be one class number per input, not one-hot rows of shape {part.shape}; "
                "store labels.argmax(1)"
            )
    given = [part.reshape(-1) for part in stored]
    if any(part.dtype.kind not in "iubU" for part in given):
        kinds = ", ".join(sorted({str(part.dtype) for part in given}))
        raise DataError(f"{what}: labels of dtype {kinds}; store whole numbers or words")
    together = np.concatenate(given)
    if together.dtype.kind == "f":  # what NumPy makes of uint64 beside int64
        together = np.concatenate([part.astype(object) for part in given])
    names, indices = np.unique(together, return_inverse=True)
    ends = np.cumsum([len(part) for part in given])[:-1]
    parts: list[NDArray[np.int64] | None] = [part.astype(np.int64) for part in np.split(indices.reshape(-1), ends)]
    return parts, tuple(map(str, names))


def share(data: Labelled, fraction: float) -> int:
    """How many inputs a fraction of `data` is, at least 1."""
    return max(1, round(len(data) * fraction))


def hold_out(
    data: Labelled, count: int, section: DataSection, purpose: str, *, stratified: bool = False
) -> tuple[Labelled, Labelled]:
    """What remains and `count` inputs drawn with the split seed, both in the order drawn.

    Stratified, every class gives its share and keeps at least one input. Raises DataError when there are too few.
    """
    generator = stream(section.split_seed, f"split {purpose}")
    order = torch.randperm(len(data), generator=generator)
    if stratified and data.labels is not None:
        quotas = _quotas(torch.bincount(data.labels), count, generator)
        held = _rank(data.labels[order]) < quotas[data.labels[order]]
    else:
        held = torch.arange(len(data)) >= len(data) - count  # the last ones
    if int(held.sum()) < count or count >= len(data):
        classes = "" if data.labels is None else f" of {len(data.labels.unique())} classes"
        inputs = f"{form_of(data.inputs).noun}s"
        raise DataError(
            f"data {section.spec!r}: {len(data)} {inputs}{classes} are too few to set {count} aside for {purpose}; "
            f"add {inputs}, or lower data.validation and data.test"
        )
    return data[order[~held]], data[order[held]]


def split(
    data: Labelled, section: DataSection, *, validation: Labelled | None = None, test: Labelled | None = None
) -> tuple[Labelled, Labelled, Labelled]:
    """Train, validation and test parts, stratified; the section's fractions of `data` where a part is not given.

    Every part is in an order drawn with the split seed. Raises DataError when there are too few inputs.
    """
    if len(data) < FEWEST:
        inputs = f"{form_of(data.inputs).noun}s"
        raise DataError(
            f"data {section.spec!r}: {len(data)} {inputs} are too few to train, validate and test; "
            f"give {FEWEST} or more"
        )
    rest, validation_count, test_count = data, share(data, section.validation), share(data, section.test)
    if test is None:
        rest, test = hold_out(rest, test_count, section, "test", stratified=True)
    else:
        test = shuffled(test, section, "test")
    if validation is None:
        rest, validation = hold_out(rest, validation_count, section, "validation", stratified=True)
    else:
        validation = shuffled(validation, section, "validation")
    return shuffled(rest, section, "train"), validation, test


def shuffled(data: Labelled, section: DataSection, purpose: str) -> Labelled:
    """The same inputs in an order drawn with the split seed, so that the first so many are no single class."""
    return data[torch.randperm(len(data), generator=stream(section.split_seed, f"order {purpose}"))]


def finish(
    section: DataSection,
    train: Labelled,
    validation: Labelled,
    test: Labelled,
    *,
    classes: tuple[str, ...] | None = None,
    rejected: tuple[Rejected, ...] = (),
    spec: InputSpec | None = None,
) -> Splits:
    """The parts as Splits, with the section's limit.

    Inputs that are not yet what `spec` says (None) become what the section says, or keep their own size and channels.
    Raises DataError when a part is empty, or when a class of another part does not appear in train.
    """
    form = form_of(train.inputs)
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        if len(part) == 0:
            raise DataError(f"data {section.spec!r}: no {name} {form.noun}s; check that the files are complete")
    _require_known_classes(section, train, (validation, test), classes)
    train = train[: section.limit]
    if spec is None:
        spec = form.spec(section, train.inputs.shape[1:])
        train, validation, test = (
            Labelled(form.conform(part.inputs, spec), part.labels) for part in (train, validation, test)
        )
    return Splits(spec, train, validation, test, classes, rejected)


def _tensor(array: NDArray[Any]) -> Tensor:
    # torch takes the machine's own byte order, doubles at most, and memory that it may write to
    longer = array.dtype.kind == "f" and array.dtype.itemsize > 8
    native = array.astype(np.float64 if longer else array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(native if native.flags.writeable else native.copy())


def _rank(labels: Tensor) -> Tensor:
    """How many equal labels come before each, (N,)."""
    order = labels.argsort(stable=True)
    starts = torch.bincount(labels).cumsum(0) - torch.bincount(labels)
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
    return ranks


def _quotas(sizes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """How many of each class to take so that they are `count`, by largest remainder; equal remainders are drawn."""
    total, most = int(sizes.sum()), (sizes - 1).clamp(min=0)
    quotas = torch.minimum(sizes * count // total, most)
    while (missing := count - int(quotas.sum())) > 0 and bool((quotas < most).any()):
        remainders = torch.where(quotas < most, sizes * count - quotas * total, torch.iinfo(torch.int64).min)
        ties = torch.randperm(len(sizes), generator=generator)
        first = ties[remainders[ties].argsort(descending=True, stable=True)]
        quotas[first[: min(missing, int((quotas < most).sum()))]] += 1
    return quotas


def _require_known_classes(
    section: DataSection, train: Labelled, others: tuple[Labelled, ...], classes: tuple[str, ...] | None
) -> None:
    if train.labels is None:
        return
    known = set(train.labels.unique().tolist())
    strange = {label for part in others if part.labels is not None for label in part.labels.unique().tolist()} - known
    if strange:
        names = ", ".join(classes[label] if classes else str(label) for label in sorted(strange)[:5])
        inputs = f"{form_of(train.inputs).noun}s"
        raise DataError(f"data {section.spec!r}: no training {inputs} of {names}; add some, or remove the class")
