"""Residual blocks between halvings: deeper nets for colour photographs of 32 to 64 pixels."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from isolatent_train.config import ModelSection
from isolatent_train.models.frame import Frame
from isolatent_train.models.vae import GaussianHead


class Block(nn.Module):
    """Features (B, C, h, w) plus two convolutions of them, normalised before each (He et al. 2016, pre-activation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Same shape."""
        outputs: Tensor = features + self.branch(features)
        return outputs


class Encoder(nn.Module):
    """Images (B, C, H, W) in 0..1 -> mean and log-variance of q(z|x), each (B, d)."""

    def __init__(self, frame: Frame, in_channels: int, section: ModelSection) -> None:
        super().__init__()
        self.frame = frame
        layers: list[nn.Module] = []
        for before, after in pairwise((in_channels, *section.channels)):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), *(Block(after) for _ in range(section.blocks))]
        self.blocks = nn.Sequential(*layers, nn.BatchNorm2d(section.channels[-1]), nn.ReLU())
        self.head = GaussianHead(section.channels[-1] * math.prod(frame.inner), section.latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of q(z|x)."""
        mean, log_variance = self.head(self.blocks(self.frame.pad(images)))
        return mean, log_variance


class Decoder(nn.Module):
    """Latents (B, d) -> parameters of the pixels' likelihood (B, C', H, W)."""

    def __init__(self, frame: Frame, out_channels: int, section: ModelSection) -> None:
        super().__init__()
        self.frame = frame
        channels = section.channels[::-1]
        self.expand = nn.Linear(section.latent, channels[0] * math.prod(frame.inner))
        layers: list[nn.Module] = []
        for before, after in pairwise((*channels, channels[-1])):
            layers += [*(Block(before) for _ in range(section.blocks))]
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(before, after, 3, padding=1)]
        layers += [nn.BatchNorm2d(channels[-1]), nn.ReLU(), nn.Conv2d(channels[-1], out_channels, 3, padding=1)]
        self.blocks = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """Decoder outputs, cut to the image's size."""
        features = self.expand(latents).unflatten(1, (-1, *self.frame.inner))  # (B, channels[-1], h, w)
        return self.frame.crop(self.blocks(features))
