"""Stride-2 convolutions down to a vector, the mirror image back up: the nets of the paper's small VAEs."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from isolatent_train.config import ModelSection
from isolatent_train.models.frame import Frame
from isolatent_train.models.vae import GaussianHead


class Encoder(nn.Module):
    """Images (B, C, H, W) in 0..1 -> mean and log-variance of q(z|x), each (B, d)."""

    def __init__(self, frame: Frame, in_channels: int, section: ModelSection) -> None:
        super().__init__()
        self.frame = frame
        layers: list[nn.Module] = []
        for before, after in pairwise((in_channels, *section.channels)):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = GaussianHead(section.channels[-1] * math.prod(frame.inner), section.latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of q(z|x)."""
        mean, log_variance = self.head(self.convolutions(self.frame.pad(images)))
        return mean, log_variance


class Decoder(nn.Module):
    """Latents (B, d) -> parameters of the pixels' likelihood (B, C', H, W)."""

    def __init__(self, frame: Frame, out_channels: int, section: ModelSection) -> None:
        super().__init__()
        self.frame = frame
        channels = section.channels[::-1]
        self.expand = nn.Linear(section.latent, channels[0] * math.prod(frame.inner))
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for before, after in pairwise(channels):
            up = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
            layers += [up, nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.ConvTranspose2d(channels[-1], out_channels, 4, stride=2, padding=1)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """Decoder outputs, cut to the image's size."""
        features = self.expand(latents).unflatten(1, (-1, *self.frame.inner))  # (B, channels[-1], h, w)
        return self.frame.crop(self.convolutions(features))
