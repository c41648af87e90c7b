"""Whatever a caller may pass as an input becomes items: a name for messages, and the bytes or the array to send.

Nothing is re-encoded with loss and nothing is imported for it: the objects of other libraries are recognised by their
attributes. Arrays are judged in _arrays, pictures in _pictures, clouds and meshes in _clouds.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from isolatent import _arrays, _clouds, _pictures
from isolatent._arrays import Array, Pixels, Points
from isolatent._clouds import Geometry
from isolatent._errors import InputError
from isolatent._pictures import Picture


@runtime_checkable
class File(Protocol):
    """An object with `read() -> bytes`, such as open(path, "rb") or io.BytesIO."""

    def read(self) -> bytes:
        """The rest of the content."""
        ...


Input: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | File | Picture | Geometry | Array"
"""One input: a path, the bytes of a file, a binary file object; a PIL image, or uint8 pixels (H, W) or (H, W, C); a
point cloud or mesh of Open3D, trimesh or laspy, or float32 or float64 points (M, 3)."""

ALLOWED = (
    "allowed are a path, the bytes of a file, a binary file object, a PIL image, a uint8 array (height, width[, "
    "channels]), a point cloud or mesh of Open3D or trimesh, or a float array (M, 3)"
)


@dataclass(frozen=True)
class Item:
    """One input, ready to send: `data` is the content of a file, pixels (H, W) or (H, W, C), or points (M, 3)."""

    index: int
    name: str
    data: bytes | Pixels | Points

    @property
    def size(self) -> int:
        """Bytes that it takes in a request, nearly."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.nbytes

    def __str__(self) -> str:
        return self.name if self.name == f"input {self.index}" else f"input {self.index} ({self.name})"


def is_one(value: object) -> bool:
    """Whether `value` is one input rather than an iterable of them.

    An array of floating point is one cloud (M, 3) or a batch (N, M, 3). Any other array is one picture when it has the
    axes of one: (H, W), or (H, W, C) with C = 1 or 3; else a batch along its first axis: (N, H, W) or (N, H, W, C). So
    a uint8 array of three axes whose last is 1 or 3 is a picture; pictures that are themselves 1 or 3 pixels wide go
    in a list. An array of texts or objects is a list of them.
    """
    if isinstance(value, Array):
        return _arrays.is_one_array(value)
    if isinstance(value, str | bytes | bytearray | memoryview | os.PathLike | File | Picture | Geometry):
        return True
    return _is_named(value) or not isinstance(value, Iterable)


def to_item(value: object, index: int = 0) -> Item:
    """The item for one input. Raises InputError with what was given and what is allowed."""
    label = f"input {index}"
    match value:
        case str() | os.PathLike():
            return Item(index, os.fsdecode(value), _read_path(value, label))
        case bytes() | bytearray() | memoryview():
            return Item(index, label, _not_empty(bytes(value), label))
        case np.ndarray() | Array():  # in this order: a look at the attributes takes longer than the rest
            return Item(index, label, _arrays.checked(_arrays.to_numpy(value, label), label))
        case Picture():
            return Item(index, _name(value, label), _pictures.png(value, label))
        case File():
            return Item(index, _name(value, label), _read_file(value, label))
        case _ if isinstance(value, Geometry):
            return Item(index, label, _clouds.to_data(value, label))
        case list() | tuple():
            hint = "pass the numbers of one input as an array, numpy.asarray(numbers), and several inputs as one list"
            raise InputError(f"{label} is a {type(value).__name__}; {hint}")
    if _is_named(value):
        raise InputError(f"{label} is a {type(value).__name__}; pass what is in it, as an array or a list of inputs")
    raise InputError(f"{label} is a {type(value).__name__}; {ALLOWED}")


def name_of(value: object, index: int) -> str:
    """What errors call an input: its path where it has one, else its place."""
    if isinstance(value, Item):
        return value.name
    path = value if isinstance(value, str | os.PathLike) else None
    return _name(value, f"input {index}") if path is None else os.fsdecode(path)


def _is_named(value: object) -> bool:
    """Whether iterating would give the names of what is in it: a dict, npz file, HDF5 group or data frame."""
    return isinstance(value, Mapping) or hasattr(value, "columns")


def _read_path(value: str | os.PathLike[str], label: str) -> bytes:
    text = os.fsdecode(value)
    path = Path(text)
    if text.startswith(("http:", "https:", "data:")):
        raise InputError(f"{label}: {_short(text)} is a URL, and URLs are not fetched; pass the bytes it leads to")
    try:
        if path.is_dir():
            hint = f"sorted(Path({text!r}).glob('*.png')), or '*.ply'"
            raise InputError(f"{label}: {text} is a directory; pass its files, such as {hint}")
        return _not_empty(path.read_bytes(), f"{label}: {text}")
    except FileNotFoundError:
        hint = "a text is taken as a path; pass contents as bytes"
        raise InputError(f"{label}: no file {_short(text)}; {hint}") from None
    except OSError as error:
        raise InputError(f"{label}: {_short(text)} cannot be read ({error.strerror}); {ALLOWED}") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{label}: {_short(text)} is no path ({error}); {ALLOWED}") from None  # a NUL in it


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:97] + "...")


def _read_file(file: Any, label: str) -> bytes:
    name = _name(file, label)
    if isinstance(file, io.TextIOBase):
        raise InputError(f'{label}: {name} is open as text; open it with open(path, "rb")')
    try:
        data: object = file.read()
    except (OSError, ValueError) as error:  # ValueError: the file is closed
        raise InputError(f"{label}: {name} cannot be read ({error}); {ALLOWED}") from None
    if not isinstance(data, bytes):
        raise InputError(f"{label}: {name} gives {type(data).__name__}, not bytes; {ALLOWED}")
    return _not_empty(data, f"{label}: {name}")


def _name(value: object, label: str) -> str:
    """The path of a file or picture that knows it."""
    name = getattr(value, "name", None) or getattr(value, "filename", None)
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else label


def _not_empty(data: bytes, what: str) -> bytes:
    if not data:
        raise InputError(f"{what} has 0 bytes; pass the content of a file, and files not yet read to their end")
    return data
