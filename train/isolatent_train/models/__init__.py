"""Model families. A new one is one new file beside conv_vae.py and one line in `build_model`."""

from __future__ import annotations

from isolatent_export.manifest import ImageInput
from isolatent_train.config import ModelSection
from isolatent_train.models.conv_vae import VAE

__all__ = ["VAE", "build_model"]


def build_model(section: ModelSection, spec: ImageInput) -> VAE:
    """The network that a configuration names, for images of the given specification."""
    return VAE(spec.shape, latent=section.latent, channels=section.channels)
