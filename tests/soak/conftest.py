"""One service of three models for all long tests that do not end theirs, and samples of what it takes."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from soak_requests import Samples
from soak_support import Running, lasting


@pytest.fixture(scope="session")
def turning_path(tmp_path_factory: pytest.TempPathFactory, cloud_bundle_path: Path) -> Path:
    """The bundle `tiny-cloud`, with a transformation that the service knows."""
    copy = Path(shutil.copytree(cloud_bundle_path, tmp_path_factory.mktemp("turning") / "tiny-cloud"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["transforms"] = [{"kind": "rotate", "axis": "any"}]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory, bundle_path: Path, colour_bundle_path: Path, turning_path: Path
) -> Iterator[Running]:
    """The models `tiny`, `tiny-colour` and `tiny-cloud`; impatient with slow clients, and at the end in time."""
    log = tmp_path_factory.mktemp("soak") / "log"
    impatient = ["--head-timeout", "2", "--body-timeout", "2", "--keep-alive", "2"]
    with lasting(log, bundle_path, colour_bundle_path, turning_path, *impatient) as running:
        yield running
        running.end(20)  # nothing accepted is left, for which it would wait for longer


@pytest.fixture(scope="session")
def png() -> bytes:
    """A grey picture as a file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (16, 16), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def samples() -> Samples:
    """Files of all kinds that the service reads, good and bad."""
    return Samples()
