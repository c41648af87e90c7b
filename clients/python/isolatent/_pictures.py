"""Pictures of other libraries, recognised by their methods, as the content of a file that keeps every pixel."""

from __future__ import annotations

import io
from typing import Any, Protocol, runtime_checkable

from isolatent._errors import InputError

_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""


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


def png(picture: Picture, label: str) -> bytes:
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
