"""Latents as a request carries them: numbers only, in JSON or as an npy array, one latent or many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs import InputError, Limits, npy
from isolatent_serve.decoding import Decoded
from isolatent_serve.inputs import Bulk, Inputs, Items, Json

Latent = NDArray[np.float32]

_DTYPES = (np.dtype("<f4"), np.dtype("<f8"))


def decode(encoded: Inputs, size: int, limits: Limits) -> Decoded:
    """The latents of a request as one array (N, size) float32. Raises InputError for what is wrong with all of them."""
    assert isinstance(encoded, Json | Bulk)  # bodies.NUMBERS lets no others in
    items = _from_npy(encoded.data, size) if isinstance(encoded, Bulk) else _from_json(encoded.value)
    if len(items.values) == 0:
        raise InputError("empty_input", "0 latents; send at least one")
    if len(items.values) > limits.items:
        count = len(items.values)
        raise InputError("too_many_items", f"{count} items, the limit is {limits.items}; send several requests")
    if isinstance(items.values, np.ndarray):
        return _of_array(items, items.values)
    return _of_outcomes(items, [_one(value, size) for value in items.values], size)


def _from_npy(data: bytes, size: int) -> Items:
    array = npy.parse(data, _DTYPES.__contains__, "float32 or float64 latents")
    if array.ndim not in (1, 2) or array.shape[-1] != size:
        got = ", ".join(map(str, array.shape))
        raise InputError("wrong_shape", f"shape ({got}), the model decodes (N, {size}); send latents of {size} numbers")
    return Items(np.atleast_2d(array), single=array.ndim == 1)


def _from_json(value: Any) -> Items:
    """A list with a list in it is a list of latents; every other value is one."""
    many = isinstance(value, list) and (not value or any(isinstance(entry, list) for entry in value))
    return Items(value) if many else Items([value], single=True)


def _of_array(items: Items, latents: NDArray[Any]) -> Decoded:
    with np.errstate(over="ignore"):  # what overflows is found below
        rounded = np.ascontiguousarray(latents, np.float32)
    finite = np.isfinite(rounded).all(axis=1)
    return Decoded(items, rounded[finite], {int(place): _NON_FINITE for place in np.flatnonzero(~finite)})


def _of_outcomes(items: Items, outcomes: list[Latent | InputError], size: int) -> Decoded:
    errors = {place: outcome for place, outcome in enumerate(outcomes) if isinstance(outcome, InputError)}
    latents = [outcome for outcome in outcomes if not isinstance(outcome, InputError)]
    return Decoded(items, np.stack(latents) if latents else np.empty((0, size), np.float32), errors)


def _one(value: Any, size: int) -> Latent | InputError:
    """The latent that a JSON value says, or what is wrong with it."""
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        return InputError("undecodable", f"not a list of numbers; send the {size} numbers of a latent")
    if len(value) != size:
        return InputError("wrong_shape", f"{len(value)} numbers, the model's latents have {size}; send {size}")
    with np.errstate(over="ignore"):
        latent = np.array(value, np.float64).astype(np.float32)
    return latent if np.isfinite(latent).all() else _NON_FINITE


_NON_FINITE = InputError(
    "non_finite", "numbers that are NaN, infinite or beyond float32; send finite numbers, near 0 as the prior's are"
)
