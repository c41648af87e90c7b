"""FoldingNet (Yang et al. 2018): a graph encoder of point clouds, and a decoder that folds a square twice.

The codeword of the paper becomes mean and log-variance of q(z|x).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from isolatent_train.config import ModelSection
from isolatent_train.geometry import covariances, nearest, pooled
from isolatent_train.models.points import PointLayer, point_layers
from isolatent_train.models.vae import GaussianHead


class Encoder(nn.Module):
    """Points (B, P, 3) -> mean and log-variance of q(z|x), each (B, d). P is at least the number of neighbours.

    Coordinates and the 3 x 3 covariance of each neighbourhood enter three layers shared by all points; then, once per
    graph layer, features are pooled over the neighbourhood and mapped. The largest of each feature is the cloud's.
    """

    def __init__(self, section: ModelSection) -> None:
        super().__init__()
        first, last = section.channels[0], section.channels[-1]
        self.neighbours = section.neighbours
        self.local = point_layers(3 + 6, first, first, first)
        self.graph = nn.ModuleList(PointLayer(before, after) for before, after in pairwise(section.channels))
        self.code = nn.Sequential(nn.Linear(last, last), nn.ReLU())
        self.head = GaussianHead(last, section.latent)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of q(z|x)."""
        places = nearest(points, self.neighbours)
        features = self.local(torch.cat([points, covariances(points, places, self.neighbours)], 2))
        for layer in self.graph:
            features = layer(pooled(features, places, self.neighbours, training=self.training))
        mean, log_variance = self.head(self.code(features.amax(1)))
        return mean, log_variance


class Decoder(nn.Module):
    """Latents (B, d) -> points (B, grid * grid, 3): a square is folded into space, and the result folded again."""

    def __init__(self, section: ModelSection) -> None:
        super().__init__()
        steps = torch.linspace(-1, 1, section.grid)
        square = torch.cartesian_prod(steps, steps)  # (grid * grid, 2)
        self.register_buffer("square", square, persistent=False)
        self.first = _Fold(section.latent, 2, section.folding)
        self.second = _Fold(section.latent, 3, section.folding)

    def forward(self, latents: Tensor) -> Tensor:
        """Points of the reconstruction."""
        sheet = self.square.expand(latents.shape[0], -1, -1)  # type: ignore[operator]
        points: Tensor = self.second(latents, self.first(latents, sheet))
        return points


class _Fold(nn.Module):
    """Moves points (B, P', D) of a sheet to (B, P', 3), each by the same function of itself and the latents (B, d).

    The first layer is split into a part of the latents and one of the points: the product with the latents, which is
    the same for all points, is then computed once.
    """

    def __init__(self, latent: int, dimensions: int, width: int) -> None:
        super().__init__()
        self.of_latents = nn.Linear(latent, width)
        self.of_points = nn.Linear(dimensions, width, bias=False)
        self.layers = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, latents: Tensor, sheet: Tensor) -> Tensor:
        """Moved points."""
        moved: Tensor = self.layers(self.of_latents(latents).unsqueeze(1) + self.of_points(sheet))
        return moved
