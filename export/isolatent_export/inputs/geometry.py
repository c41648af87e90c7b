"""Bytes to geometry: the format is recognised by content, never by name, and the file is read with suspicion."""

from __future__ import annotations

import codecs
from collections.abc import Callable

import numpy as np

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.inputs.npy import MAGIC
from isolatent_export.inputs.readers import binvox, glb, las, npz, obj, off, pcd, ply, stl, text
from isolatent_export.inputs.readers.common import Geometry, require_few

__all__ = ["FORMATS", "PACKAGES", "Geometry", "describe"]

FORMATS = ("PLY", "PCD", "OFF", "OBJ", "STL", "GLB", "LAS", "LAZ", "binvox", "npy", "npz", "text of x y z")

PACKAGES = ("trimesh", "laspy", "lazrs", "lzf")
"""What some of these formats are read with; the extra `clouds` installs them."""

Reader = Callable[[bytes, Limits], Geometry | None]

# In this order: first what has a magic number, then what merely looks like a format.
_READERS: tuple[tuple[str, Callable[[bytes], object], Reader], ...] = (
    ("npy", lambda data: data.startswith(MAGIC), npz.read_npy),
    ("npz", lambda data: data.startswith(b"PK\x03\x04"), npz.read_npz),
    ("GLB", lambda data: data.startswith(b"glTF"), glb.read),
    ("LAS", lambda data: data.startswith(b"LASF"), las.read),
    ("binvox", lambda data: data.startswith(b"#binvox"), binvox.read),
    ("PLY", lambda data: data.startswith((b"ply\n", b"ply\r", b"ply ")), ply.read),
    ("PCD", pcd.HEADER.match, pcd.read),
    ("OFF", off.HEADER.match, off.read),
    ("STL", stl.is_binary, stl.read_binary),
    ("STL", stl.is_ascii, stl.read_ascii),
    ("OBJ", obj.looks_like_it, obj.read),
    ("text", lambda _: True, text.read),
)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def describe(data: bytes, limits: Limits) -> Geometry:
    """The points of a cloud, or the vertices and triangles of a mesh, in the units and the order of the file.

    Raises InputError: `undecodable`, `too_many_points`, `wrong_dtype` or `wrong_shape`. Coordinates may be anything.
    """
    if data.startswith(b"version https://git-lfs"):
        raise InputError("undecodable", "a Git LFS pointer, not the file itself; fetch it with: git lfs pull")
    data = _plain(data)
    form, reader = next((form, reader) for form, recognises, reader in _READERS if recognises(data))
    try:
        with np.errstate(all="ignore"):
            geometry = reader(data, limits)
    except InputError:
        raise
    except Exception as error:  # parsers of half a dozen packages, on files made to break them
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InputError("undecodable", f"broken {form} file ({reason}); save it again, best as PLY") from None
    if geometry is None:
        raise InputError("undecodable", f"not a cloud or mesh of a known format; send one of {', '.join(FORMATS)}")
    _check(geometry, limits)
    return geometry


def _plain(data: bytes) -> bytes:
    """Text in UTF-8 with line feeds; other content unchanged."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            data = data[len(mark) :].decode(encoding, "replace").encode()
            break
    return data


def _check(geometry: Geometry, limits: Limits) -> None:
    require_few(len(geometry.points), limits, "points")
    if geometry.triangles is None:
        return
    require_few(len(geometry.triangles), limits, "triangles")
    if len(geometry.triangles) and not 0 <= geometry.triangles.min() <= geometry.triangles.max() < len(geometry.points):
        raise InputError("undecodable", "a face names a vertex that is not there; the file is cut or damaged")
