"""Places on disk that a specification names, and archives of arrays, read without trust."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_train.data.splits import DataError

LARGEST = 16 * 2**30
"""Uncompressed bytes that an archive may hold."""

_ARCHIVE_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, MemoryError),
    *(ValueError, TypeError, KeyError, OverflowError, SyntaxError, tokenize.TokenError),
)
# What zipfile (first line) and NumPy's header parser (second) raise on broken, encrypted or forged archives.


def locate(place: str, source: str) -> Path:
    """The path that SOURCE:PLACE names, whether there is something or not. Raises DataError: one cannot look there."""
    try:
        path = Path(place).expanduser()
        path.exists()
    except OSError as error:  # too long a name, or below a folder that one may not enter
        raise DataError(f"data '{source}:{place}': {error.strerror}; check the path and its permissions") from None
    except RuntimeError:
        raise DataError(f"data '{source}:{place}': no such user; check the name after ~") from None
    return path


def require_folder(place: str, source: str) -> Path:
    """The folder that SOURCE:PLACE names. Raises DataError."""
    if not place:
        raise DataError(f"data {source!r}: which folder? write {source}:DIR")
    folder = locate(place, source)
    if not folder.is_dir():
        what = "is a file; name the folder that holds it" if folder.exists() else "no such folder; check the path"
        raise DataError(f"data '{source}:{place}': {what}")
    if not os.access(folder, os.X_OK):
        raise DataError(f"data '{source}:{place}': a folder that one may not enter; check its permissions")
    return folder


def require_file(place: str, source: str) -> Path:
    """The file that SOURCE:PLACE names. Raises DataError."""
    if not place:
        raise DataError(f"data {source!r}: which file? write {source}:FILE.npz")
    file = locate(place, source)
    if not file.is_file():
        what = "is a folder; name a file in it" if file.is_dir() else "no such file; check the path"
        raise DataError(f"data '{source}:{place}': {what}")
    return file


def require_path(place: str, source: str) -> Path:
    """The file or folder that SOURCE:PLACE names. Raises DataError."""
    if not place:
        raise DataError(f"data {source!r}: which file? write {source}:FILE or {source}:DIR")
    path = locate(place, source)
    if not path.is_file() and not path.is_dir():
        raise DataError(f"data '{source}:{place}': no such file or folder; check the path")
    return path


def npz_names(path: Path) -> set[str]:
    """Names of the arrays in an npz archive. Raises DataError when it is none or holds more than LARGEST bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except _ARCHIVE_ERRORS as error:
        raise _broken(path, error) from None
    size = sum(member.file_size for member in members)
    if size > LARGEST:
        raise DataError(f"{path}: {size / 2**30:.0f} GiB uncompressed, the limit is {LARGEST // 2**30}; split the file")
    return {member.filename.removesuffix(".npy") for member in members if member.filename.endswith(".npy")}


def read_npz(path: Path, names: Iterable[str]) -> list[NDArray[Any]]:
    """The named arrays of an npz archive; nothing is unpickled. Raises DataError naming an array that is missing."""
    stored, wanted = npz_names(path), list(names)
    missing = [name for name in wanted if name not in stored]
    if missing:
        raise DataError(f"{path}: no array {missing[0]!r}; it holds {', '.join(sorted(stored)) or 'none'}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = [archive[name] for name in wanted]
    except _ARCHIVE_ERRORS as error:
        raise _broken(path, error) from None
    for name, array in zip(wanted, arrays, strict=True):
        if not isinstance(array, np.ndarray):  # NumPy hands out members that are no npy files as bytes
            raise _broken(path, ValueError(f"{name}.npy is no array"))
    return arrays


def _broken(path: Path, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return DataError(f"{path}: not a usable npz archive ({reason}); write it with numpy.savez_compressed")
