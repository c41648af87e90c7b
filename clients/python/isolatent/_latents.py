"""Latents as items: one (d,) or many (N, d), in the precision that they have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isolatent._arrays import Array, to_numpy
from isolatent._errors import InputError
from isolatent._inputs import Item

Latents: TypeAlias = "Array | Iterable[Array] | Sequence[float] | Iterable[Sequence[float]]"
"""One latent (d,) or many (N, d), as an array or as lists of numbers; or an iterable of latents (d,)."""


def each(latents: Latents) -> Iterable[Any]:
    """The latents one by one: checked at once where they are all there, and as they come from a generator."""
    return to_items(latents) if isinstance(latents, Array | Sequence) or not hasattr(latents, "__iter__") else latents


def to_item(value: object, index: int) -> Item:
    """The item for one latent. Raises InputError with what was given and what is allowed."""
    if isinstance(value, Item):
        return value
    try:
        (item,) = to_items(value)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"latent {index}: {error}") from None
    except ValueError:
        raise InputError(
            f"latent {index} is an array of several; pass one (d,) at a time, or all as one array"
        ) from None
    return replace(item, index=index, name=f"latent {index}")


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
