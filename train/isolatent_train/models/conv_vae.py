"""A convolutional VAE: stride-2 convolutions down to a vector, the mirror image back up."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from isolatent_train.posterior import LOG_VARIANCE_RANGE, DiagonalGaussian


class Encoder(nn.Module):
    """Images (B, C, H, W) in 0..1 -> mean and log-variance of q(z|x), each (B, d)."""

    def __init__(self, frame: Frame, in_channels: int, channels: tuple[int, ...], latent: int) -> None:
        super().__init__()
        self.padding = frame.padding
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, *channels), channels, strict=False):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.parameters_of_q = nn.Linear(channels[-1] * math.prod(frame.inner), 2 * latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance; the latter clamped to a range where its exponential is finite."""
        features = self.convolutions(functional.pad(images, self.padding))  # (B, channels[-1], h, w)
        mean, log_variance = self.parameters_of_q(features.flatten(1)).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)


class Decoder(nn.Module):
    """Latents (B, d) -> parameters of the pixels' likelihood (B, C, H, W)."""

    def __init__(self, frame: Frame, out_channels: int, channels: tuple[int, ...], latent: int) -> None:
        super().__init__()
        self.frame = frame
        self.expand = nn.Linear(latent, channels[0] * math.prod(frame.inner))
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for before, after in pairwise(channels):
            layers += [
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        layers += [nn.ConvTranspose2d(channels[-1], out_channels, 4, stride=2, padding=1)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """Decoder outputs, cut to the image's size."""
        features = self.expand(latents).unflatten(1, (-1, *self.frame.inner))  # (B, channels[0], h, w)
        return self.frame.crop(self.convolutions(features))


class Frame:
    """An image size padded to the next multiple of 2^depth, and the size left after `depth` halvings."""

    def __init__(self, height: int, width: int, depth: int) -> None:
        factor = 2**depth
        self.height, self.width = height, width
        self.inner = (math.ceil(height / factor), math.ceil(width / factor))
        vertical, horizontal = self.inner[0] * factor - height, self.inner[1] * factor - width
        self.top, self.left = vertical // 2, horizontal // 2
        self.padding = (self.left, horizontal - self.left, self.top, vertical - self.top)

    def crop(self, images: Tensor) -> Tensor:
        """Cut padded images (B, C, H', W') back to (B, C, H, W)."""
        return images[:, :, self.top : self.top + self.height, self.left : self.left + self.width]


class VAE(nn.Module):
    """Encoder and decoder of images of shape (H, W, C); see `encode` and `decode`."""

    family = "vae"

    def __init__(self, shape: tuple[int, int, int], *, latent: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        height, width, image_channels = shape
        frame = Frame(height, width, len(channels))
        self.latent = latent
        self.encoder = Encoder(frame, image_channels, channels, latent)
        self.decoder = Decoder(frame, image_channels, channels[::-1], latent)

    def encode(self, images: Tensor) -> DiagonalGaussian:
        """Images (B, C, H, W) in 0..1 -> q(z|x) over (B, d)."""
        return DiagonalGaussian(*self.encoder(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, d) -> parameters of the likelihood (B, C, H, W)."""
        outputs: Tensor = self.decoder(latents)
        return outputs
