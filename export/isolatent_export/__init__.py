"""The bundle: the one thing that passes from training to serving. Importing this package loads no torch."""

from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.manifest import ImageInput, Manifest

__all__ = ["Bundle", "BundleError", "ImageInput", "Manifest"]
