"""Networks of the model families. A new one is one new file beside conv.py and one line in its modality's table."""

from __future__ import annotations

from torch import nn

from isolatent_export.manifest import ImageInput, InputSpec
from isolatent_train.codecs import codec_of
from isolatent_train.config import ModelSection
from isolatent_train.likelihoods import Likelihood
from isolatent_train.models import conv, dgcnn, folding, residual
from isolatent_train.models.frame import Frame
from isolatent_train.models.vae import VAE, GaussianHead

__all__ = ["EXACT", "NETS", "VAE", "build_model"]

EXACT = (GaussianHead, dgcnn.EdgeConvolution)
"""Layers that stay in float32 in fp16 bundles: log-variances, and features that decide which points are neighbours."""

_OF_IMAGES = {"conv": (conv.Encoder, conv.Decoder), "residual": (residual.Encoder, residual.Decoder)}
_OF_CLOUDS = {"folding": (folding.Encoder, folding.Decoder), "dgcnn": (dgcnn.Encoder, folding.Decoder)}

NETS = {"image": tuple(_OF_IMAGES), "point_cloud": tuple(_OF_CLOUDS)}
"""Names of the nets for each modality."""


def build_model(section: ModelSection, spec: InputSpec, likelihood: Likelihood) -> VAE:
    """The network that a configuration names, for inputs of the given specification, which it must fit."""
    if isinstance(spec, ImageInput):
        frame = Frame(spec.height, spec.width, len(section.channels))
        make_encoder, make_decoder = _OF_IMAGES[section.net]
        encoder: nn.Module = make_encoder(frame, spec.channels, section)
        decoder: nn.Module = make_decoder(frame, likelihood.channels(spec.channels), section)
    else:
        make_graph, make_folds = _OF_CLOUDS[section.net]
        encoder, decoder = make_graph(section), make_folds(section)
    return VAE(encoder, decoder, section.latent, codec_of(spec))
