"""Discretised logistic pixels: for grey levels and colour.

Chosen over a Gaussian with learned scale because it is a probability of the 256 levels themselves: its NLL is in bits
that compare with published ones, and it cannot grow without bound where pixels are constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from isolatent_train.codecs import Modality

HALF_LEVEL = 0.5 / 255
SMALLEST_LOG_SCALE = -7.0


@dataclass(frozen=True)
class DiscretisedLogistic:
    """Each of the 256 levels has the logistic probability of its bin; 0 and 255 take the tails (Salimans et al. 2017).

    The decoder puts out, per pixel and channel, the logit of the location and the log of the scale.
    """

    modality: ClassVar[Modality] = "image"
    is_density: ClassVar[bool] = True

    @property
    def description(self) -> str:
        """One line for model cards."""
        return "discretised logistic over 256 levels, location and scale per pixel"

    def channels(self, image_channels: int) -> int:
        """Location and scale for each."""
        return 2 * image_channels

    def targets(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images brought to the 256 levels: interpolation leaves values between them."""
        return self.observe(images, generator)

    def observe(self, images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 (nothing random here)
        """Images brought to the 256 levels."""
        return (images.clamp(0, 1) * 255).round() / 255

    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum over pixels of log [ F((x + h - m) / s) - F((x - h - m) / s) ], F the sigmoid, h half a level."""
        location, log_scale = self._parameters(outputs)
        offset, inverse_scale = targets - location, (-log_scale).exp()
        above, below = (offset + HALF_LEVEL) * inverse_scale, (offset - HALF_LEVEL) * inverse_scale
        # log(F(a) - F(b)) = log F(a) + log(1 - F(b)) + log(1 - exp(b - a)), which loses no digits in the tails.
        inside = functional.logsigmoid(above) + functional.logsigmoid(-below) + torch.log(-torch.expm1(below - above))
        lowest, highest = functional.logsigmoid(above), functional.logsigmoid(-below)
        log_probability = torch.where(
            targets < HALF_LEVEL, lowest, torch.where(targets > 1 - HALF_LEVEL, highest, inside)
        )
        return log_probability.flatten(2).sum(2)

    def mean(self, outputs: Tensor) -> Tensor:
        """Locations, (..., C, H, W) in 0..1."""
        return self._parameters(outputs)[0]

    def _parameters(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        location, log_scale = outputs.chunk(2, dim=-3)
        return location.sigmoid(), log_scale.clamp(min=SMALLEST_LOG_SCALE)
