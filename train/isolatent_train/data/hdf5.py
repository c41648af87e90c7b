"""HDF5 files of arrays, read without trust: plain data sets of numbers in the file itself, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from isolatent_train.data.files import LARGEST
from isolatent_train.data.splits import DataError

_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)
# What h5py makes of the HDF5 library's own errors.


def read_hdf5(path: Path, *names: str) -> list[NDArray[Any]]:
    """The arrays of those names at the root of an HDF5 file.

    Raises DataError naming an array that is missing or leads elsewhere: links to other places or files, data sets put
    together from or kept in other files, and types that are no numbers are refused.
    """
    try:
        with h5py.File(path, "r") as file:
            return [_read(file, name, path) for name in names]
    except DataError:
        raise
    except _ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise DataError(f"{path}: not a usable HDF5 file ({reason}); download it again") from None


def _read(file: h5py.File, name: str, path: Path) -> NDArray[Any]:
    names = set(file)  # members as they are called; `name in file` would follow links
    if name not in names:
        raise DataError(f"{path}: no data set {name!r}; it holds {', '.join(sorted(names)[:20]) or 'none'}")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise DataError(f"{path}: {name!r} is a link; store the array itself")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{path}: {name!r} is no data set; store an array")
    if found.is_virtual or found.external:
        raise DataError(f"{path}: {name!r} takes its values from other files; store the array itself")
    if found.dtype.kind not in "iuf" or found.shape is None:
        raise DataError(f"{path}: {name!r} has dtype {found.dtype}; store numbers")
    if found.nbytes > LARGEST:
        size = f"{found.nbytes / 2**30:.0f} GiB"
        raise DataError(f"{path}: {name!r} holds {size}, the limit is {LARGEST // 2**30}; split the file")
    return np.asarray(found[()])
