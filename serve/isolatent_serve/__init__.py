"""The HTTP service over verified bundles. Start it with: isolatent serve BUNDLE..."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isolatent_serve.app import create_app
    from isolatent_serve.settings import JobSettings, RequestLimits, Settings

__all__ = ["JobSettings", "RequestLimits", "Settings", "create_app"]


def __getattr__(name: str) -> Any:
    # Imported when they are asked for: processes of batch jobs need nothing of a web framework, which takes longest.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'app' if name == 'create_app' else 'settings'}"), name)
