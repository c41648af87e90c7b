"""Layers that networks of point clouds share."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class PointLayer(nn.Module):
    """One linear layer, normalised and rectified, of every point alike: (B, P, C) -> (B, P, C')."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after, bias=False)
        self.norm = nn.BatchNorm1d(after)

    def forward(self, features: Tensor) -> Tensor:
        """Features of each point."""
        rows: Tensor = self.norm(self.linear(features).flatten(0, 1))
        return rows.relu().view(features.shape[0], features.shape[1], -1)


def point_layers(*widths: int) -> nn.Sequential:
    """Point layers from the first width to the last."""
    return nn.Sequential(*(PointLayer(before, after) for before, after in pairwise(widths)))
