"""The HTTP service over verified bundles. Start it with: isolatent serve BUNDLE..."""

from isolatent_serve.app import create_app
from isolatent_serve.settings import RequestLimits, Settings

__all__ = ["RequestLimits", "Settings", "create_app"]
