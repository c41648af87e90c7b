"""Where bundles from elsewhere come in: fetched beside their place, verified there, and only then moved to it."""

from __future__ import annotations

import shutil
from pathlib import Path

from isolatent_export.bundle import Bundle, BundleError, is_bundle
from isolatent_export.placing import replacing
from isolatent_export.sharing.archive import unpack
from isolatent_export.verify import load_verified


def arrive(source: str, out: Path, *, revision: str | None = None, overwrite: bool = False) -> Bundle:
    """Bring the bundle `source` (directory, tar archive, or OWNER/NAME on the hub) to `out`; returns it, opened.

    Hashes and golden outputs are checked on ONNX Runtime; no code of the bundle runs. `out` appears whole or not at
    all. Raises BundleError with the reason; a bundle at `out` is replaced only with `overwrite`, anything else never.
    """
    with replacing(out, is_bundle, overwrite=overwrite) as work:
        try:
            _fetch(source, work, revision)
            load_verified(Bundle.open(work))
        except BundleError as error:
            raise BundleError(str(error).replace(str(work), source)) from None
        for file in work.iterdir():
            file.chmod(0o644)
    return Bundle.open(out)


def _fetch(source: str, folder: Path, revision: str | None) -> None:
    path = Path(source)
    if "://" in source:
        raise BundleError(f"{source}: addresses are not fetched; download the file and pull it, or give OWNER/NAME")
    if path.is_dir():
        bundle = Bundle.open(path)
        bundle.require_intact()
        for name in ("manifest.json", *bundle.manifest.files):
            shutil.copyfile(bundle.file(name), folder / name, follow_symlinks=False)
    elif path.is_file():
        unpack(path, folder)
    else:
        from isolatent_export.sharing import hub  # an extra, and only this needs it

        if not hub.REPOSITORY.fullmatch(source):
            raise BundleError(f"{source}: no such file or directory, and no OWNER/NAME of a repository")
        hub.download(source, folder, revision=revision)
