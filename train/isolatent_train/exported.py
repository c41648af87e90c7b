"""What is exported: encoder and decoder with the numeric pre- and postprocessing inside."""

from __future__ import annotations

from torch import Tensor, nn

from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import VAE


class ExportedEncoder(nn.Module):
    """Inputs (B, ...) as stored: uint8 pixels or float32 points -> mean, log-variance (B, d)."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.codec = model.codec

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of q(z|x)."""
        mean, log_variance = self.encoder(self.codec.to_network(inputs))
        return mean, log_variance


class ExportedDecoder(nn.Module):
    """Latents (B, d) -> expected inputs: pixels (B, H, W, C) in 0..1, or points (B, P', 3)."""

    def __init__(self, model: VAE, likelihood: Likelihood) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.codec = model.codec
        self.likelihood = likelihood

    def forward(self, latents: Tensor) -> Tensor:
        """The mean of p(x|z)."""
        return self.codec.to_inputs(self.likelihood.mean(self.decoder(latents)))
