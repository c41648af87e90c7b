"""What both kinds of client are before they send anything: options, and the sense of empty and single inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isolatent._backends import dialect
from isolatent._errors import InputError
from isolatent._options import Options
from isolatent.types import Model


class BaseClient:
    """Checked options."""

    def __init__(
        self, base_url: str | None, api_key: str | None, timeout: float, max_retries: int, backend: str
    ) -> None:
        self._dialect = dialect(backend)
        self._options = Options.resolve(base_url, api_key, timeout, max_retries, self._dialect.base_url)

    @property
    def base_url(self) -> str:
        """The address of the service."""
        return self._options.base_url

    def __repr__(self) -> str:
        """The address; never the key."""
        return f"{type(self).__name__}({self.base_url!r})"


def joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The rows (N, ...) of parts (n, ...), at least one."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def the_one(models: list[Model]) -> Model:
    """The model that is meant when none is named. Raises InputError where there are several, or none."""
    if len(models) == 1:
        return models[0]
    names = ", ".join(each.id for each in models)
    raise InputError(f"no inputs and no model= to tell the shape of their results; there are: {names}")


def no_embeddings(model: Model) -> NDArray[np.float32]:
    """(0, d)."""
    return np.empty((0, model.latent_size), np.float32)


def no_reconstructions(model: Model) -> NDArray[np.float32]:
    """(0, H, W, C) or (0, P', 3)."""
    return np.empty((0, *model.reconstruction_shape), np.float32)


def no_consistencies() -> NDArray[np.float32]:
    """(0, 2)."""
    return np.empty((0, 2), np.float32)
