"""A variational auto-encoder: any encoder that puts out q(z|x), any decoder that puts out parameters of p(x|z)."""

from __future__ import annotations

from torch import Tensor, nn

from isolatent_train.codecs import Codec
from isolatent_train.posterior import LOG_VARIANCE_RANGE, DiagonalGaussian


class VAE(nn.Module):
    """Encoder: images (B, C, H, W) or points (B, P, 3) -> mean, log-variance (B, d). Decoder: latents (B, d) ->
    parameters of the likelihood, (B, C', H, W) or (B, P', 3).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: int, codec: Codec) -> None:
        super().__init__()
        self.codec = codec
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent

    def encode(self, inputs: Tensor) -> DiagonalGaussian:
        """Images in 0..1 or points -> q(z|x) over (B, d), in float32 whatever the network computes in."""
        mean, log_variance = self.encoder(inputs)
        return DiagonalGaussian(mean.float(), log_variance.float())

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, d) -> parameters of the likelihood, float32."""
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
