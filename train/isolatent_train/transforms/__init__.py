"""Semantics-preserving transformations t(x~|x), drawn per input and applied as one batch on the device.

A new transformation is one new file beside affine.py (images) or rotate.py (point clouds) and one more member of
`Transform`; a new preset one entry in presets.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, get_args

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from isolatent_train.transforms.affine import Affine
from isolatent_train.transforms.colour import ColourJitter
from isolatent_train.transforms.crop import Crop
from isolatent_train.transforms.dropout import Dropout, Occlude
from isolatent_train.transforms.flip import Flip
from isolatent_train.transforms.jitter import Jitter
from isolatent_train.transforms.mirror import Mirror
from isolatent_train.transforms.permute import Permute
from isolatent_train.transforms.presets import PRESETS
from isolatent_train.transforms.rotate import Rotate
from isolatent_train.transforms.scale import Scale
from isolatent_train.transforms.translate import Translate

__all__ = [
    "PRESETS",
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
    "Transforms",
    "Translate",
    "kinds",
    "require_modality",
    "transform",
]

_Images = Affine | Flip | ColourJitter | Crop
_Clouds = Rotate | Scale | Translate | Jitter | Dropout | Occlude | Mirror | Permute

Transform = Annotated[_Images | _Clouds, Field(discriminator="kind")]


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


def transform(inputs: Tensor, transforms: Sequence[Transform], generator: torch.Generator) -> Tensor:
    """Apply `transforms` in order; every input gets parameters of its own.

    Inputs are images (B, C, H, W) in 0..1 or points (B, P, 3), as the transformations' modality says.
    """
    for each in transforms:
        inputs = each(inputs, generator)
    return inputs


def kinds(modality: str) -> dict[str, type[Transform]]:
    """The transformations for `image` or `point_cloud`, by kind."""
    return {
        member.model_fields["kind"].default: member
        for member in get_args(_Images | _Clouds)
        if member.modality == modality
    }


def require_modality(transforms: Iterable[Transform], modality: str) -> None:
    """Raise ValueError naming what fits when one of `transforms` is not for `image` or `point_cloud`."""
    strange = next((each for each in transforms if each.modality != modality), None)
    if strange is None:
        return
    fitting = kinds(modality)
    presets = [name for name, entries in PRESETS.items() if all(entry["kind"] in fitting for entry in entries)]
    raise ValueError(
        f"transforms: {strange.kind!r} is for inputs of modality {strange.modality}, these are {modality}; "
        f"kinds that fit are {', '.join(fitting)}; presets are {', '.join(presets)}"
    )
