"""The result of a request: every input in its place, with numbers or with what was wrong with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isolatent_export.inputs import InputError
from isolatent_serve.decoding import Decoded
from isolatent_serve.outputs import Array, Shapes, Tensors
from isolatent_serve.problems import Problem, at


@dataclass(frozen=True)
class Result:
    """`tensors` have one row per input, NaN where `errors` has an entry for the row's index."""

    tensors: Tensors
    errors: dict[int, InputError]
    count: int


def collect(decoded: Decoded, computed: Tensors, shapes: Shapes) -> Result:
    """Put computed rows, which exist for decoded inputs only, into their places; refuse those that are not finite."""
    # The reduction itself: .all() goes through Python, which takes longer than all of a small answer.
    if not decoded.errors and all(np.logical_and.reduce(np.isfinite(each), axis=None) for each in computed.values()):
        return Result(computed, {}, decoded.count)
    places = [index for index in range(decoded.count) if index not in decoded.errors]
    overflown = [places[row] for row in np.flatnonzero(~_finite(computed, len(places)))]
    tensors = {name: np.full((decoded.count, *shape), np.nan, np.float32) for name, shape in shapes.items()}
    for name, rows in computed.items():
        tensors[name][places] = rows
        tensors[name][overflown] = np.nan
    return Result(tensors, decoded.errors | dict.fromkeys(overflown, NON_FINITE), decoded.count)


def require_all(decoded: Decoded, errors: dict[int, InputError]) -> None:
    """Raise the problem of the first failed input, naming the other ones too."""
    if not errors:
        return
    (index, error), *_ = placed = sorted(errors.items())
    if decoded.count == 1:
        raise at(decoded.items.pointer(index), error)
    bad = f"{len(errors)} of {decoded.count} are bad; on_error=item answers the others"
    places = [(decoded.items.pointer(place), other.detail) for place, other in placed]
    raise Problem(error.code, f"input {index}: {error.detail} ({bad})", errors=places)


def require_answerable(count: int, shapes: Shapes, limit: int) -> None:
    """Raise Problem `too_much_memory` when the answer to so many inputs would be larger than a request may be."""
    each = 4 * sum(map(math.prod, shapes.values()))
    if count * each > limit:
        detail = (
            f"the answer to {count} inputs takes {count * each} bytes, the limit is {limit}; "
            f"send at most {limit // each} per request"
        )
        raise Problem("too_much_memory", detail, errors=[("/input", detail)])


NON_FINITE = InputError(
    "non_finite_output", "the model's answer overflows float32; the input is far from what the model was trained on"
)


def _finite(tensors: Tensors, count: int) -> Array:
    finite = np.ones(count, bool)
    for tensor in tensors.values():
        finite &= np.isfinite(tensor).all(axis=tuple(range(1, tensor.ndim)))
    return finite
