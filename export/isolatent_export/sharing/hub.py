"""Bundles in repositories of the Hugging Face hub. Needs the extra `hub`.

The hub's address and the token are huggingface_hub's own affair: HF_ENDPOINT, HF_TOKEN, `hf auth login`.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HFValidationError

from isolatent_export.bundle import MANIFEST, MANIFEST_BYTES, Bundle, BundleError
from isolatent_export.sharing.archive import MAX_BYTES, MAX_FILES

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that no repository and no network makes."""

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def upload(bundle: Bundle, repository: str, *, private: bool = False) -> str:
    """Make an intact bundle the whole content of `repository`, OWNER/NAME, in one commit; returns its address.

    The repository is made if it is not there; `private` says how. Raises BundleError with the hub's reason.
    """
    bundle.require_intact()
    names = [MANIFEST, *bundle.manifest.files]
    facts = bundle.manifest
    with _explained(repository):
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=bundle.path,
            allow_patterns=names,
            delete_patterns="*",  # what an earlier version had and this one has not
            commit_message=f"{facts.name} {facts.version}",
        )
    return str(commit.commit_url)


def download(repository: str, folder: Path, *, revision: str | None = None) -> None:
    """Write the bundle in `repository`, OWNER/NAME, into the empty `folder`: the files of its manifest, no others.

    All come from one commit. Raises BundleError with the hub's reason, or when a file's size is not the manifest's.
    """
    with _explained(repository):
        commit = HfApi().model_info(repository, revision=revision).sha
        assert commit is not None
        _fetch(repository, commit, MANIFEST, folder, most=MANIFEST_BYTES)
        files = Bundle.open(folder).manifest.files
        if len(files) > MAX_FILES or sum(fact.bytes for fact in files.values()) > MAX_BYTES:
            raise BundleError(f"{repository}: more or larger files than a bundle may have; do not use this bundle")
        for name, fact in files.items():
            _fetch(repository, commit, name, folder, most=fact.bytes)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # huggingface_hub's notes on what it has downloaded


def _fetch(repository: str, commit: str, name: str, folder: Path, *, most: int) -> None:
    size = get_hf_file_metadata(hf_hub_url(repository, name, revision=commit)).size
    if size is None or size > most:
        raise BundleError(f"{repository}: {name} has {size} bytes where {most} are allowed; do not use this bundle")
    hf_hub_download(repository, name, revision=commit, local_dir=folder)


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """The hub's errors in one line each, with the remedy."""
    try:
        yield
    except HFValidationError as error:
        raise BundleError(f"{repository}: {_first_line(error)}; give OWNER/NAME") from None
    except (httpx2.HTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise BundleError(f"{repository}: {error.strerror} while it was copied; make room on the disk") from None
        raise BundleError(
            f"{repository}: {_first_line(error)}; check the name, the network and, for what is private, "
            "HF_TOKEN or `hf auth login`"
        ) from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
