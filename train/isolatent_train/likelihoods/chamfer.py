"""Points scattered around their nearest counterparts: the Chamfer distance as an energy, for point clouds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from isolatent_train.codecs import Modality
from isolatent_train.geometry import chamfer_distance


@dataclass(frozen=True)
class Chamfer:
    """log p(x|z) = -P / (4 scale^2) CD(x, y) + constant, x of P points, y the decoder's points.

    Each point is a Gaussian with standard deviation `scale` per axis around its nearest counterpart; the two directions
    are averaged. The constant, which does not depend on the parameters, is left out: the values order models and weigh
    against KL terms in nats, but are no densities.
    """

    modality: ClassVar[Modality] = "point_cloud"
    is_density: ClassVar[bool] = False

    scale: float

    @property
    def description(self) -> str:
        """One line for model cards."""
        return f"Gaussian around the nearest point, standard deviation {self.scale:g} (Chamfer energy)"

    def channels(self, image_channels: int) -> int:  # noqa: ARG002 (a point has no channels)
        """Coordinates of a point."""
        return 3

    def targets(self, points: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 (nothing random here)
        """The points themselves."""
        return points

    def observe(self, points: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 (nothing random here)
        """The points themselves."""
        return points

    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Decoded points (K, B, P', 3) and targets (B, P, 3) -> energies in nats (K, B)."""
        samples, points = outputs.shape[0], targets.shape[1]
        distances = chamfer_distance(outputs.flatten(0, 1), targets.repeat(samples, 1, 1))
        return -points / (4 * self.scale**2) * distances.view(samples, -1)

    def mean(self, outputs: Tensor) -> Tensor:
        """The decoded points."""
        return outputs
