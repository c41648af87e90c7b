"""An encoder of point clouds in the style of DGCNN (Wang et al. 2019): edge convolutions on graphs of features.

The edge function is linear in both ends, so that it is computed once per point and not once per edge; normalisation and
rectification follow the maximum over the edges.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from isolatent_train.config import ModelSection
from isolatent_train.geometry import nearest, pooled
from isolatent_train.models.points import PointLayer
from isolatent_train.models.vae import GaussianHead


class EdgeConvolution(nn.Module):
    """max_j of U x_i + V (x_j - x_i) over the k nearest in feature space, normalised and rectified: (B, P, C')."""

    def __init__(self, before: int, after: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.own = nn.Linear(before, after, bias=False)  # U - V
        self.other = nn.Linear(before, after, bias=False)  # V
        self.norm = nn.BatchNorm1d(after)

    def forward(self, features: Tensor) -> Tensor:
        """Features of each point."""
        places = nearest(features, self.neighbours)
        edges = self.own(features) + pooled(self.other(features), places, self.neighbours, training=self.training)
        rows = nn.functional.leaky_relu(self.norm(edges.flatten(0, 1)), 0.2)
        return rows.view(features.shape[0], features.shape[1], -1)


class Encoder(nn.Module):
    """Points (B, P, 3) -> mean and log-variance of q(z|x), each (B, d). P is at least the number of neighbours.

    All but the last of the section's channels are edge convolutions; their outputs together are mapped to the last, of
    which the largest and the mean over the points are the cloud's.
    """

    def __init__(self, section: ModelSection) -> None:
        super().__init__()
        *widths, last = section.channels
        self.edges = nn.ModuleList(
            EdgeConvolution(before, after, section.neighbours) for before, after in pairwise((3, *widths))
        )
        self.together = PointLayer(sum(widths) or 3, last)
        self.code = nn.Sequential(nn.Linear(2 * last, last), nn.ReLU())
        self.head = GaussianHead(last, section.latent)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of q(z|x)."""
        features, seen = points, []
        for layer in self.edges:
            features = layer(features)
            seen.append(features)
        features = self.together(torch.cat(seen, 2) if seen else points)
        mean, log_variance = self.head(self.code(torch.cat([features.amax(1), features.mean(1)], 1)))
        return mean, log_variance
