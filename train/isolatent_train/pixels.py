"""Where stored pixels and the network's images meet: the only place that knows their scale and layout."""

from __future__ import annotations

from torch import Tensor, nn

from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import VAE


def to_images(pixels: Tensor) -> Tensor:
    """Pixels (B, H, W, C) uint8 -> images (B, C, H, W) float32 in 0..1."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def to_layout(images: Tensor) -> Tensor:
    """Images (B, C, H, W) -> (B, H, W, C)."""
    return images.permute(0, 2, 3, 1)


class ExportedEncoder(nn.Module):
    """What is exported: pixels (B, H, W, C) uint8 -> mean, log-variance (B, d)."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of q(z|x)."""
        mean, log_variance = self.encoder(to_images(pixels))
        return mean, log_variance


class ExportedDecoder(nn.Module):
    """What is exported: latents (B, d) -> expected pixels (B, H, W, C) in 0..1."""

    def __init__(self, model: VAE, likelihood: Likelihood) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.likelihood = likelihood

    def forward(self, latents: Tensor) -> Tensor:
        """The mean of p(x|z)."""
        return to_layout(self.likelihood.mean(self.decoder(latents)))
