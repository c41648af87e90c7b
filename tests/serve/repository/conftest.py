"""A model directory and a client of the service that follows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from isolatent_export.manifest import ImageInput
from repository_support import (
    following,
    publish,
)
from support import export_untrained


@pytest.fixture(scope="module")
def other_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle like `tiny`, of other weights: its answers tell which of the two has given them."""
    spec = ImageInput(height=16, width=16, channels=1)
    return export_untrained(tmp_path_factory.mktemp("other") / "tiny", spec, latent=8, seed=8).path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Path:
    """A model directory in which every test has names of its own."""
    path = tmp_path_factory.mktemp("repository") / "models"
    publish(bundle_path, path / "first" / "1")
    return path


@pytest.fixture(scope="module")
def client(directory: Path) -> Iterator[httpx2.Client]:
    """A client of the service that follows the directory."""
    with following(directory) as client:
        yield client
