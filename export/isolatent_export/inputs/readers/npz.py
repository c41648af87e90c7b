"""NumPy arrays of points: npy, also structured with fields x, y and z, and one of the arrays of an npz archive."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.inputs.npy import parse as parse_npy
from isolatent_export.inputs.readers.common import Geometry

_NAMES = ("points", "xyz", "vertices", "data", "arr_0")
_FLOATS = (np.dtype("<f4"), np.dtype("<f8"))
_PLAIN = re.compile(r"[\w-][\w .-]*\.npy", re.ASCII)
_MOST_MEMBERS = 64
_LARGEST_RATIO = 100


def parse(data: bytes) -> NDArray[Any]:
    """The array of an npy file: little-endian floats, also structured with x, y, z, as (..., 3). Raises InputError."""
    array = parse_npy(data, _takes, "points in little-endian float32 or float64")
    if array.dtype.names is None:
        return array
    return np.stack([array[axis] for axis in "xyz"], axis=-1)


def read_npy(data: bytes, limits: Limits) -> Geometry:
    """The points of an npy file (M, 3). Raises InputError."""
    return _geometry(parse(data), limits)


def read_npz(data: bytes, limits: Limits) -> Geometry:
    """The array named points, xyz, vertices, data or arr_0, or the only one. Raises InputError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check(members, len(data), limits)
            content = archive.read(_chosen(members))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise InputError("undecodable", f"broken npz file ({error}); write it with numpy.savez") from None
    return _geometry(parse(content), limits)


def _takes(dtype: np.dtype[Any]) -> bool:
    if dtype.names is None:
        return dtype in _FLOATS
    return all(axis in dtype.names and dtype[axis] in _FLOATS for axis in "xyz")


def _check(members: list[zipfile.ZipInfo], packed: int, limits: Limits) -> None:
    """Refuse archives by what they announce, before anything is inflated."""
    if len(members) > _MOST_MEMBERS:
        raise InputError(
            "undecodable", f"an archive of {len(members)} files; save one array of points with numpy.savez"
        )
    strange = next((member for member in members if not _PLAIN.fullmatch(member.filename)), None)
    if strange is not None:
        raise InputError("undecodable", f"an archive with {strange.filename[:60]!r}; save points with numpy.savez")
    size = sum(member.file_size for member in members)
    if size > min(limits.unpacked_bytes, _LARGEST_RATIO * packed):
        raise InputError("too_many_points", f"an archive that unpacks to {size} bytes; save the points alone")


def _chosen(members: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    by_name = {member.filename.removesuffix(".npy"): member for member in members}
    named = next((by_name[name] for name in _NAMES if name in by_name), None)
    if named is None and len(members) != 1:
        raise InputError("undecodable", f"none of {len(members)} arrays is named {', '.join(_NAMES)}; rename one")
    return named or members[0]


def _geometry(array: NDArray[Any], limits: Limits) -> Geometry:
    if array.ndim != 2 or array.shape[1] != 3:
        got = ", ".join(map(str, array.shape))
        raise InputError("wrong_shape", f"shape ({got}), a cloud is (points, 3) as x, y, z; send one cloud per file")
    if len(array) > limits.points:
        raise InputError(
            "too_many_points", f"{len(array)} points, the limit is {limits.points}; thin the cloud out first"
        )
    return Geometry(array.astype(np.float64))
