"""A variational auto-encoder: any encoder that puts out q(z|x), any decoder that puts out parameters of p(x|z)."""

from __future__ import annotations

from torch import Tensor, nn

from isolatent_train.posterior import LOG_VARIANCE_RANGE, DiagonalGaussian


class VAE(nn.Module):
    """Encoder: images (B, C, H, W) -> mean, log-variance (B, d). Decoder: latents (B, d) -> (B, C', H, W)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent

    def encode(self, images: Tensor) -> DiagonalGaussian:
        """Images (B, C, H, W) in 0..1 -> q(z|x) over (B, d), in float32 whatever the network computes in."""
        mean, log_variance = self.encoder(images)
        return DiagonalGaussian(mean.float(), log_variance.float())

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, d) -> parameters of the likelihood (B, C', H, W), float32."""
        outputs: Tensor = self.decoder(latents)
        return outputs.float()


class GaussianHead(nn.Module):
    """Features (B, ...) -> mean and log-variance (B, d), the latter clamped to where its exponential is finite."""

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * latent)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of q(z|x)."""
        mean, log_variance = self.linear(features.flatten(1)).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)
