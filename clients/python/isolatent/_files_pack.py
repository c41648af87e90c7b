"""A path here as one file to upload: an archive or Parquet file as it is, a folder as a zip file for the occasion."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from isolatent._errors import InputError

_TYPES = {
    ".zip": "application/zip",
    ".tar": "application/x-tar",
    ".tar.gz": "application/gzip",
    ".tgz": "application/gzip",
    ".parquet": "application/vnd.apache.parquet",
}
_ALLOWED = f"allowed are a folder, or a file that ends in {', '.join(_TYPES)}"


@dataclass(frozen=True)
class Packed:
    """A file that is ready to be sent."""

    path: Path
    filename: str
    media_type: str
    size: int

    def sha256(self) -> str:
        """Of the content, read in pieces."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def packed(given: str | os.PathLike[str]) -> Iterator[Packed]:
    """The file for a path. That of a folder is there while the block runs, in the folder for temporary files.

    Raises InputError with what was given and what is allowed.
    """
    path = Path(given)
    try:
        if not path.is_dir():
            size = path.stat().st_size  # first: what is not there has no type
            yield Packed(path, path.name, _media_type(path), size)
            return
        with tempfile.TemporaryDirectory(prefix="isolatent-") as folder:
            archive = Path(folder, "folder.zip")
            _zip(path, archive)
            yield Packed(archive, f"{path.resolve().name or 'folder'}.zip", _TYPES[".zip"], archive.stat().st_size)
    except FileNotFoundError as error:
        raise InputError(f"no file or folder {error.filename or path}; {_ALLOWED}") from None
    except OSError as error:
        hint = "; set TMPDIR to a folder with more room" if error.filename is None else ""
        raise InputError(f"{error.filename or path} cannot be read or packed ({error.strerror}){hint}") from None


def _media_type(path: Path) -> str:
    for suffix, media_type in _TYPES.items():
        if path.name.lower().endswith(suffix):
            return media_type
    raise InputError(f"{path} is nothing that a job reads; {_ALLOWED}. Single files go to posteriors() or embed()")


def _zip(folder: Path, archive: Path) -> None:
    """The files below a folder in order of name, hidden ones left out, links to folders not followed.

    The same files give the same bytes whenever they are packed. They are stored as they are: pictures do not shrink.
    """
    names = sorted(_names(folder))
    if not names:
        raise InputError(f"{folder} has no files; {_ALLOWED}")
    with zipfile.ZipFile(archive, "w") as out:
        for name in names:
            with (folder / name).open("rb") as file:
                entry = zipfile.ZipInfo(name)
                entry.file_size = os.fstat(file.fileno()).st_size  # tells zipfile whether it takes 64-bit lengths
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                with out.open(entry, "w") as member:
                    shutil.copyfileobj(file, member)


def _names(folder: Path) -> Iterator[str]:
    """Paths below a folder, with slashes. Raises InputError for one that no archive can name."""
    for here, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            path = Path(here, file)
            if file.startswith(".") or not path.is_file():
                continue
            name = path.relative_to(folder).as_posix()
            try:
                name.encode()
            except UnicodeEncodeError:
                raise InputError(f"{name!r} in {folder} is a name that an archive cannot hold; rename it") from None
            yield name


def _raise(error: OSError) -> None:
    raise error
