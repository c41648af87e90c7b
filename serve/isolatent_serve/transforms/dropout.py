"""Points of a cloud that get lost: anywhere, or all on one side."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Dropout(BaseModel):
    """Members and draws as in isolatent_train.transforms.dropout."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["dropout"] = "dropout"
    fraction: float = Field(default=0.5, ge=0, lt=1)

    def __call__(self, points: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Points (N, P, 3) -> the same shape."""
        fraction, (scores, draws) = generator.random() * self.fraction, generator.random((2, points.shape[1]))
        return self.apply(points, fraction=fraction, scores=scores, draws=draws)

    @staticmethod
    def apply(points: NDArray[Any], *, fraction: float, scores: NDArray[Any], draws: NDArray[Any]) -> NDArray[Any]:
        """Replace the share `fraction` of points (N, P, 3) with the highest `scores` (P,) by others, as `draws` say."""
        return _replace_last(points, np.broadcast_to(scores, points.shape[:2]), fraction, draws)


class Occlude(BaseModel):
    """Members and draws as in isolatent_train.transforms.dropout."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["occlude"] = "occlude"
    fraction: float = Field(default=0.3, ge=0, lt=1)

    def __call__(self, points: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Points (N, P, 3) -> the same shape."""
        fraction, direction = generator.random() * self.fraction, generator.normal(size=3)
        (draws,) = generator.random((1, points.shape[1]))
        return self.apply(points, fraction=fraction, direction=direction, draws=draws)

    @staticmethod
    def apply(points: NDArray[Any], *, fraction: float, direction: NDArray[Any], draws: NDArray[Any]) -> NDArray[Any]:
        """Replace the share `fraction` of points (N, P, 3) that lies farthest along `direction` (3,)."""
        return _replace_last(points, points @ direction.astype(points.dtype), fraction, draws)


def _replace_last(points: NDArray[Any], scores: NDArray[Any], fraction: float, draws: NDArray[Any]) -> NDArray[Any]:
    """Points (N, P, 3) with those of the highest scores (N, P) replaced by others, chosen by draws (P,) in 0..1."""
    count = points.shape[1]
    kept = count - min(math.floor(fraction * count), count - 1)  # at least 1
    order = scores.argsort(axis=1)  # (N, P), kept ones first
    rank = np.arange(count)
    place = np.where(rank < kept, rank, np.minimum((draws * kept).astype(int), kept - 1))  # (P,) places in `order`
    source = np.empty_like(order)
    np.put_along_axis(source, order, order[:, place], axis=1)  # (N, P): kept points stay in place
    return np.take_along_axis(points, source[:, :, None], axis=1)
