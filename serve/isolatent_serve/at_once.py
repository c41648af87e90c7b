"""What the event loop decodes itself: files and arrays that take less time than the way to a thread and back.

The bounds hold for anything a client may send: no request keeps the loop from the others for more than a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isolatent_export.inputs import npy
from isolatent_export.manifest import InputSpec

COPIED_BYTES = 2**19
"""Of an array that is copied at most."""

_ITEMS = 4
_FILE_BYTES = 32 * 2**10
_PIXELS = 10_000  # 100 x 100 in colour: a quarter of a millisecond
_POINTS = 2048  # in principal axes: half a millisecond
_FEWEST = 64  # points that a smaller cloud takes as long as
_PNG = b"\x89PNG\r\n\x1a\n"
_UNFOLDING = (b"zTXt", b"iTXt", b"iCCP")  # chunks of a PNG that are inflated, whatever its size in pixels


def are_few(items: Sequence[Any]) -> bool:
    """Whether the items of a request are so few and small that it is worth to look at them here."""
    return len(items) <= _ITEMS and all(
        isinstance(item, bytes) or (isinstance(item, str) and len(item) < 2 * _FILE_BYTES) for item in items
    )


def is_quick(file: bytes, spec: InputSpec) -> bool:
    """Whether `file` is decoded, or refused, in a fraction of a millisecond: a small PNG, or a small array."""
    if len(file) > _FILE_BYTES:
        return False
    if file.startswith(npy.MAGIC):
        return is_quick_array(file, spec)
    if spec.modality != "image" or spec.height * spec.width > _PIXELS:
        return False
    if file.startswith(_PNG):
        width, height = int.from_bytes(file[16:20]), int.from_bytes(file[20:24])
        return width * height <= _PIXELS and not any(kind in file for kind in _UNFOLDING)
    return False


def is_quick_array(data: bytes, spec: InputSpec) -> bool:
    """Whether an npy file of one item or several is: pixels are viewed, or copied once."""
    if not npy.has_short_header(data):
        return False
    if spec.modality == "image":
        return len(data) <= COPIED_BYTES
    shape = npy.shape_of(data)
    return shape is not None and are_quick_clouds(shape, len(data), spec)


def are_quick_clouds(shape: Sequence[int], size: int, spec: InputSpec) -> bool:
    """Whether an array (N, M, 3) or (M, 3) of `size` bytes is sampled and normalised in a fraction of a millisecond."""
    if spec.modality != "point_cloud" or spec.sampling != "random" or size > _FILE_BYTES:
        return False  # farthest points are searched for
    return (shape[0] if len(shape) == 3 else 1) * max(spec.points, _FEWEST) <= _POINTS
