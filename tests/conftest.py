"""Fixtures shared by all packages: small real bundles, made once per run by the real exporter."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolatent_export.manifest import ImageInput
from support import export_untrained, export_untrained_cloud
from torchserve_support import TorchServer, torchserve


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """What a command says on stderr after it has set up logs goes nowhere: the stream is that of its test alone."""
    root = logging.getLogger()
    level, before = root.level, set(root.handlers)
    yield
    root.setLevel(level)
    for handler in set(root.handlers) - before:
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle `tiny`: grey 16 x 16 images, 8 latent variables."""
    spec = ImageInput(height=16, width=16, channels=1)
    return export_untrained(tmp_path_factory.mktemp("bundles") / "tiny", spec, latent=8).path


@pytest.fixture(scope="session")
def colour_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle `tiny-colour`: RGB images 12 high and 20 wide, 6 latent variables."""
    spec = ImageInput(height=12, width=20, channels=3)
    return export_untrained(tmp_path_factory.mktemp("bundles") / "tiny-colour", spec, latent=6).path


@pytest.fixture(scope="session")
def cloud_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle `tiny-cloud`: 64 points in, 49 points out, 8 latent variables."""
    return export_untrained_cloud(tmp_path_factory.mktemp("bundles") / "tiny-cloud").path


@pytest.fixture(scope="session")
def torchserver(
    tmp_path_factory: pytest.TempPathFactory, bundle_path: Path, cloud_bundle_path: Path
) -> Iterator[TorchServer]:
    """TorchServe with `tiny` and `tiny-cloud`: one for all tests, as Java takes its time to start."""
    with torchserve(tmp_path_factory.mktemp("torchserve") / "store", bundle_path, cloud_bundle_path) as server:
        yield server


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; tests that need it are skipped where there is none."""
    folder = os.environ.get("ISOLATENT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ISOLATENT_DATA names no folder with the real data sets")
    return Path(folder)
