"""Latents as items: one (d,) or many (N, d), in the precision that they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from isolatent._arrays import Array, to_numpy
from isolatent._errors import InputError
from isolatent._inputs import Item

Latents: TypeAlias = "Array | Sequence[Array] | Sequence[float] | Sequence[Sequence[float]]"
"""One latent (d,) or many (N, d), as an array or as lists of numbers."""


def to_items(latents: Latents) -> list[Item]:
    """An item for each latent. Raises InputError with what was given and what is allowed."""
    array = to_numpy(latents, "latents")
    what = f"latents are an array {array.shape} of {array.dtype}"
    if array.dtype.kind not in "fiu":
        raise InputError(f"{what}, expected numbers of one model: (d,) for one latent or (N, d) for many")
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise InputError(f"{what}, expected (d,) for one latent or (N, d) for many, at least one")
    rows = np.atleast_2d(_plain(array))
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise InputError(f"{what}: latent {int(finite.argmin())} is not finite; drop it, or see what it came from")
    return [Item(index, f"latent {index}", row) for index, row in enumerate(rows)]


def _plain(array: NDArray[np.generic]) -> NDArray[np.float32] | NDArray[np.float64]:
    """The numbers in float32 where that is exact and else in float64."""
    is_small = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    return array.astype("<f4" if is_small else "<f8", copy=False)
