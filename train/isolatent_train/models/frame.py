"""Image sizes that survive being halved and doubled again."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional


class Frame:
    """An image size padded to the next multiple of 2^depth; `inner` is the size left after `depth` halvings."""

    def __init__(self, height: int, width: int, depth: int) -> None:
        factor = 2**depth
        self.height, self.width = height, width
        self.inner = (math.ceil(height / factor), math.ceil(width / factor))
        vertical, horizontal = self.inner[0] * factor - height, self.inner[1] * factor - width
        self.top, self.left = vertical // 2, horizontal // 2
        self.padding = (self.left, horizontal - self.left, self.top, vertical - self.top)

    def pad(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) with a margin of zeros: (B, C, H', W')."""
        return functional.pad(images, self.padding)

    def crop(self, images: Tensor) -> Tensor:
        """Cut padded images (B, C, H', W') back to (B, C, H, W)."""
        return images[:, :, self.top : self.top + self.height, self.left : self.left + self.width]
