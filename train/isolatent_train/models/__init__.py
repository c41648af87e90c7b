"""Networks of the model families. A new one is one new file beside conv.py and one line in `_NETS`."""

from __future__ import annotations

from isolatent_export.manifest import ImageInput
from isolatent_train.config import ModelSection
from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import conv, residual
from isolatent_train.models.frame import Frame
from isolatent_train.models.vae import VAE

__all__ = ["VAE", "build_model"]

_NETS = {"conv": (conv.Encoder, conv.Decoder), "residual": (residual.Encoder, residual.Decoder)}


def build_model(section: ModelSection, spec: ImageInput, likelihood: Likelihood) -> VAE:
    """The network that a configuration names, for images of the given specification."""
    frame = Frame(spec.height, spec.width, len(section.channels))
    make_encoder, make_decoder = _NETS[section.net]
    encoder = make_encoder(frame, spec.channels, section)
    decoder = make_decoder(frame, likelihood.channels(spec.channels), section)
    return VAE(encoder, decoder, section.latent)
