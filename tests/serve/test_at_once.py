"""What the event loop decodes itself is small in every respect; everything else goes to a thread or a process."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from isolatent_export.manifest import ImageInput, PointCloudInput
from isolatent_serve import at_once

SPEC = ImageInput(height=28, width=28, channels=1)


def picture(side: int, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(file, kind, **options)
    return file.getvalue()


def texts(**members: str) -> PngInfo:
    info = PngInfo()
    for name, text in members.items():
        info.add_text(name, text, zip=True)
    return info


def test_small_pictures_and_arrays_are_decoded_at_once() -> None:
    array = io.BytesIO()
    np.save(array, np.zeros((28, 28), np.uint8))
    assert at_once.is_quick(picture(28), SPEC)
    assert at_once.is_quick(array.getvalue(), SPEC)


@pytest.mark.parametrize(
    "file",
    [
        picture(2000),  # 500 bytes that are 4 million pixels
        picture(28) + bytes(40_000),
        picture(28, pnginfo=texts(Comment="x" * 100_000)),  # 100 bytes that are 100 kB of text
        picture(28, icc_profile=bytes(100_000)),
        picture(28, "JPEG"),  # has any number of passes
        picture(28, "GIF"),
        b"no picture",
        b"",
    ],
)
def test_what_may_take_longer_is_not(file: bytes) -> None:
    assert not at_once.is_quick(file, SPEC)


def test_a_small_picture_for_a_large_encoder_is_not() -> None:
    assert not at_once.is_quick(picture(28), ImageInput(height=512, width=512, channels=1))


def points(*shape: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(shape, np.float32))
    return file.getvalue()


def named_fields(*shape: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(shape, [(axis, np.float32) for axis in "xyz"]))
    return file.getvalue()


def long_header(shape: str) -> bytes:
    """An npy file whose header takes NumPy some time."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(9000) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize("spec", [SPEC, PointCloudInput(points=64)])
def test_long_headers_are_not_read(spec: ImageInput | PointCloudInput) -> None:
    file = long_header(f"({'1L,' * 2900})")
    assert not at_once.is_quick(file, spec)
    assert not at_once.is_quick_array(file, spec)


def test_small_arrays_of_points_are() -> None:
    assert at_once.is_quick(points(1000, 3), PointCloudInput(points=1024))
    assert at_once.is_quick(points(8, 64, 3), PointCloudInput(points=64))


@pytest.mark.parametrize(
    ("file", "spec"),
    [
        (points(3000, 3), PointCloudInput(points=64)),
        (points(8, 3), PointCloudInput(points=4096)),  # repeated until there are so many
        (points(500, 2, 3), PointCloudInput(points=64)),
        (points(1000, 3), PointCloudInput(points=64, sampling="farthest")),
        (b"\x93NUMPY", PointCloudInput(points=64)),
        (points(10, 3).replace(b"(10, 3)", b"(10, x)"), PointCloudInput(points=64)),
        (named_fields(300, 2), PointCloudInput(points=64)),  # 300 clouds in an array of two axes
        (points(200, 8, 3), PointCloudInput(points=8)),
        (b"1 2 3\n4 5 6\n", PointCloudInput(points=64)),  # files of points are parsed in processes
    ],
)
def test_other_clouds_are_not(file: bytes, spec: PointCloudInput) -> None:
    assert not at_once.is_quick(file, spec)


def test_only_a_few_short_items_are_looked_at() -> None:
    assert at_once.are_few([b"file", "data:;base64,aGk="])
    assert not at_once.are_few([b"file"] * 5)
    assert not at_once.are_few(["a" * 100_000])
    assert not at_once.are_few([[0, 1]])
