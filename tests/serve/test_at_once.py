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


def test_clouds_are_not() -> None:
    assert not at_once.is_quick(b"\x93NUMPY", PointCloudInput(points=64))


def test_only_a_few_short_items_are_looked_at() -> None:
    assert at_once.are_few([b"file", "data:;base64,aGk="])
    assert not at_once.are_few([b"file"] * 5)
    assert not at_once.are_few(["a" * 100_000])
    assert not at_once.are_few([[0, 1]])
