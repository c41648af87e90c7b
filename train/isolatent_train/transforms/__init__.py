"""Semantics-preserving transformations t(x~|x), drawn per image and applied as one batch on the device.

A new transformation is one new file beside affine.py and one more member of `Transform`; a new preset one entry in
`PRESETS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from isolatent_train.transforms.affine import Affine
from isolatent_train.transforms.colour import ColourJitter
from isolatent_train.transforms.crop import Crop
from isolatent_train.transforms.flip import Flip

__all__ = ["PRESETS", "Affine", "ColourJitter", "Crop", "Flip", "Transform", "Transforms", "transform"]

Transform = Annotated[Affine | Flip | ColourJitter | Crop, Field(discriminator="kind")]

PRESETS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    # Sinha & Dieng 2021, for characters; then the same at roughly twice the strength, and each part alone.
    "paper": [{"kind": "affine", "rotation": 15, "translation": 0.07, "scale": 0.1}],
    "large": [{"kind": "affine", "rotation": 30, "translation": 0.1, "scale": 0.25}],
    "rotation": [{"kind": "affine", "rotation": 15, "translation": 0, "scale": 0}],
    "translation": [{"kind": "affine", "rotation": 0, "translation": 0.07, "scale": 0}],
    "scale": [{"kind": "affine", "rotation": 0, "translation": 0, "scale": 0.1}],
    # Photographs may be mirrored, cropped and recoloured, but hardly turned.
    "photo": [
        {"kind": "crop"},
        {"kind": "flip"},
        {"kind": "affine", "rotation": 5, "translation": 0, "scale": 0, "padding": "reflect"},
        {"kind": "colour_jitter"},
    ],
}


def _expand(value: Any) -> Any:
    """A preset's name, or a list with presets' names among its entries, written out."""
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list | tuple):
        return value
    unknown = [entry for entry in entries if isinstance(entry, str) and entry not in PRESETS]
    if unknown:
        raise ValueError(f"no preset {unknown[0]!r}; presets are {', '.join(PRESETS)}")
    written = (PRESETS[entry] if isinstance(entry, str) else [entry] for entry in entries)
    return tuple(each for entry in written for each in entry)


Transforms = Annotated[tuple[Transform, ...], BeforeValidator(_expand)]
"""A preset's name, or a list of transformations and presets' names, applied in order."""


def transform(images: Tensor, transforms: Sequence[Transform], generator: torch.Generator) -> Tensor:
    """Apply `transforms` in order to images (B, C, H, W) in 0..1; every image gets parameters of its own."""
    for each in transforms:
        images = each(images, generator)
    return images
