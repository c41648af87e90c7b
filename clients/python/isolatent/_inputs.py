"""Whatever a caller may pass as an input becomes items: a name for messages, and bytes or pixels to send.

Nothing is re-encoded with loss and nothing is imported for it: a picture object is recognised by its methods.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from isolatent._errors import InputError

Pixels: TypeAlias = NDArray[np.uint8]


@runtime_checkable
class File(Protocol):
    """An object with `read() -> bytes`, such as open(path, "rb") or io.BytesIO."""

    def read(self) -> bytes:
        """The rest of the content."""
        ...


@runtime_checkable
class Picture(Protocol):
    """A PIL image, by its attributes."""

    mode: str

    def save(self, fp: Any, format: str, **options: Any) -> None:  # noqa: A002 (PIL's own name)
        """Write the picture to `fp`."""
        ...

    def load(self) -> Any:
        """Decode the pixels, where that has been put off."""
        ...

    def getexif(self) -> Any:
        """The EXIF tags, among them the orientation."""
        ...


Input: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | File | Picture | Pixels"
"""One input: a path, the bytes of a file, a binary file object, a PIL image, or uint8 pixels (H, W) or (H, W, C)."""

ALLOWED = (
    "allowed are a path, the bytes of an image file, a binary file object, a PIL image, "
    "or a uint8 array (height, width[, channels])"
)

_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""


@dataclass(frozen=True)
class Item:
    """One input, ready to send: `data` is the content of a file, or pixels (H, W) or (H, W, C)."""

    index: int
    name: str
    data: bytes | Pixels

    @property
    def size(self) -> int:
        """Bytes that it takes in a request, nearly."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.nbytes

    def __str__(self) -> str:
        return self.name if self.name == f"input {self.index}" else f"input {self.index} ({self.name})"


def is_one(value: object) -> bool:
    """Whether `value` is one input rather than an iterable of them.

    An array is one input when it has the axes of a picture: (H, W), or (H, W, C) with C = 1 or 3. Any other array is
    a batch along its first axis: (N, H, W) or (N, H, W, C). So an array of three axes whose last is 1 or 3 is a
    picture; pictures that are themselves 1 or 3 pixels wide go in a list.
    """
    if isinstance(value, np.ndarray):
        return value.ndim < 3 or (value.ndim == 3 and value.shape[-1] in (1, 3))
    return isinstance(value, str | bytes | bytearray | memoryview | os.PathLike | File | Picture) or not isinstance(
        value, Iterable
    )


def to_items(values: Input | Iterable[Input]) -> Iterator[Item]:
    """The items of one input or of an iterable of them, read one by one as they are asked for. Raises InputError."""
    each: Iterable[Any] = [values] if is_one(values) else values  # type: ignore[assignment]
    return (to_item(value, index) for index, value in enumerate(each))


def to_item(value: object, index: int = 0) -> Item:
    """The item for one input. Raises InputError with what was given and what is allowed."""
    label = f"input {index}"
    match value:
        case str() | os.PathLike():
            return Item(index, os.fsdecode(value), _read_path(value, label))
        case bytes() | bytearray() | memoryview():
            return Item(index, label, _not_empty(bytes(value), label))
        case np.ndarray():
            return Item(index, label, _pixels(value, label))
        case Picture():
            return Item(index, _name(value, label), _png(value, label))
        case File():
            return Item(index, _name(value, label), _read_file(value, label))
    raise InputError(f"{label} is a {type(value).__name__}; {ALLOWED}")


def _read_path(value: str | os.PathLike[str], label: str) -> bytes:
    text = os.fsdecode(value)
    path = Path(text)
    if text.startswith(("http:", "https:", "data:")):
        raise InputError(f"{label}: {_short(text)} is a URL, and URLs are not fetched; pass the bytes it leads to")
    try:
        if path.is_dir():
            hint = f"sorted(Path({text!r}).glob('*.png'))"
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
        raise InputError(f"{what} has 0 bytes; pass the content of an image file, and files not yet read to their end")
    return data


def _png(picture: Picture, label: str) -> bytes:
    """The picture as PNG, or as TIFF where PNG lacks its mode; both keep every pixel and the orientation."""
    buffer = io.BytesIO()
    try:
        picture.load()  # turns some formats upright
        tags = picture.getexif()
        camera = type(tags)()  # the orientation alone: other tags describe the file that the picture came from
        camera[_ORIENTATION] = tags.get(_ORIENTATION, 1)
        if picture.mode in _PNG_MODES:
            picture.save(buffer, "PNG", compress_level=1, exif=camera)
        else:
            picture.save(buffer, "TIFF", compression="raw", exif=camera)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f'{label}: the picture of mode {picture.mode} cannot be saved ({error}); pass image.convert("RGB")'
        ) from None
    return buffer.getvalue()


def _pixels(array: NDArray[Any], label: str) -> Pixels:
    what = f"{label} is an array {array.shape} of {array.dtype}"
    if array.dtype != np.uint8:
        raise InputError(f"{what}, expected uint8 pixels 0..255; {_conversion(array.dtype)}")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(f"{what}, expected one picture (height, width) or (height, width, channels)")
    return array


def _conversion(dtype: np.dtype[Any]) -> str:
    match dtype.kind:
        case "f":
            return "convert values in 0..1 with (array * 255).round().astype(numpy.uint8)"
        case "b":
            return "convert with array.astype(numpy.uint8) * 255"
        case "i" | "u":
            return "convert values in 0..255 with array.astype(numpy.uint8)"
    return ALLOWED
