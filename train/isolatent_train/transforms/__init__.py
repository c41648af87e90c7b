"""Semantics-preserving transformations t(x~|x), drawn per image and applied as one batch on the device.

A new transformation is one new file beside affine.py and one more member of `Transform`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from isolatent_train.transforms.affine import Affine

__all__ = ["Affine", "Transform", "transform"]

Transform = Annotated[Affine, Field()]


def transform(images: Tensor, transforms: Sequence[Transform], generator: torch.Generator) -> Tensor:
    """Apply `transforms` in order to images (B, C, H, W) in 0..1; every image gets parameters of its own."""
    for each in transforms:
        images = each(images, generator)
    return images
