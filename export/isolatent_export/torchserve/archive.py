"""A bundle as a TorchServe model archive, NAME.mar: the TorchScript twin, the facts, the golden samples, a handler.

The archive is a zip file with MAR-INF/MANIFEST.json. It is written here and not by torch-model-archiver, which puts
today's date into it: the same bundle gives the same bytes.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from isolatent_export.bundle import GOLDEN, MANIFEST, TORCHSCRIPT, Bundle

CARRIED = (MANIFEST, TORCHSCRIPT, GOLDEN)
"""The bundle's files that go into the archive."""

HANDLER = '''\
"""What TorchServe starts; the work is done by isolatent, which must be installed in TorchServe's Python."""

import sys

try:
    from isolatent_export.torchserve.handler import Handler as IsolatentHandler
except ModuleNotFoundError as error:
    remedy = f'{sys.executable} -m pip install "isolatent[torchserve]"'
    raise RuntimeError(f"{error.name} is not installed in TorchServe's Python; run: {remedy}") from None


class Handler(IsolatentHandler):
    """TorchServe looks for one class in this file."""
'''

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that zip files can state
_PLAIN_FILE = 0o644 << 16


def write_archive(bundle: Bundle, path: Path) -> None:
    """Write `bundle` to `path`, a new file. Raises BundleError when a file is not what the manifest says."""
    bundle.require_intact()
    members = {name: bundle.file(name).read_bytes() for name in CARRIED}
    members |= {"handler.py": HANDLER.encode(), "MAR-INF/MANIFEST.json": json.dumps(_facts(bundle), indent=2).encode()}
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = _PLAIN_FILE
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


def _facts(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    model = {"modelName": manifest.name, "modelVersion": manifest.version, "handler": "handler.py"}
    created = manifest.created.strftime("%d/%m/%Y %H:%M:%S")
    return {"createdOn": created, "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
