"""The transformations t(x~|x) of a model in NumPy: what isolatent_train.transforms does, without torch.

A new transformation is one new file beside affine.py (images) or rotate.py (point clouds) and one more member of
`Transform`. Every item gets the same draw: the answer for one does not depend on what else is in its batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from isolatent_serve.transforms.affine import Affine
from isolatent_serve.transforms.colour import ColourJitter
from isolatent_serve.transforms.crop import Crop
from isolatent_serve.transforms.dropout import Dropout, Occlude
from isolatent_serve.transforms.flip import Flip
from isolatent_serve.transforms.jitter import Jitter
from isolatent_serve.transforms.mirror import Mirror
from isolatent_serve.transforms.permute import Permute
from isolatent_serve.transforms.rotate import Rotate
from isolatent_serve.transforms.scale import Scale
from isolatent_serve.transforms.translate import Translate

__all__ = [
    "Affine",
    "ColourJitter",
    "Crop",
    "Dropout",
    "Flip",
    "Jitter",
    "Mirror",
    "Occlude",
    "Permute",
    "Rotate",
    "Scale",
    "Transform",
    "Translate",
    "Unavailable",
    "read",
    "transform",
]

_Images = Affine | Flip | ColourJitter | Crop
_Clouds = Rotate | Scale | Translate | Jitter | Dropout | Occlude | Mirror | Permute

Transform = _Images | _Clouds

_IMAGES: TypeAdapter[_Images] = TypeAdapter(Annotated[_Images, Field(discriminator="kind")])
_CLOUDS: TypeAdapter[_Clouds] = TypeAdapter(Annotated[_Clouds, Field(discriminator="kind")])


class Unavailable(Exception):  # noqa: N818 - nothing went wrong
    """A transformation that cannot be computed here; the message names it."""


def read(entries: Iterable[Mapping[str, Any]], modality: str) -> tuple[Transform, ...]:
    """The transformations that a manifest states for `image` or `point_cloud`. Raises Unavailable."""
    adapter: TypeAdapter[Any] = _IMAGES if modality == "image" else _CLOUDS
    return tuple(_one(entry, adapter) for entry in entries)


def transform(items: NDArray[Any], transforms: Iterable[Transform], generator: np.random.Generator) -> NDArray[Any]:
    """Apply `transforms` in order, all to pixels (N, H, W, C) uint8 or all to points (N, P, 3) float32.

    Pixels are transformed in 0..1 and rounded to the whole numbers that encoders take.
    """
    if items.dtype != np.uint8:
        return _apply(items, transforms, generator)
    images = _apply(items.astype(np.float32) / np.float32(255), transforms, generator)
    return np.asarray(np.rint(images.clip(0, 1) * 255), np.uint8)


def _apply(items: NDArray[Any], transforms: Iterable[Transform], generator: np.random.Generator) -> NDArray[Any]:
    for each in transforms:
        items = each(items, generator)
    return np.ascontiguousarray(items, np.float32)


def _one(entry: Mapping[str, Any], adapter: TypeAdapter[Any]) -> Transform:
    try:
        found: Transform = adapter.validate_python(entry)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise Unavailable(f"{str(entry.get('kind'))[:80]!r} ({reason[:200]})") from None
    return found
