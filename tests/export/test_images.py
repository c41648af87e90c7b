"""Image files of every kind become the pixels that the encoder takes; everything else is refused with a reason."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isolatent_export.inputs import InputError, Limits, decode_batch, decode_item, decode_numbers
from isolatent_export.manifest import ImageInput

GREY = ImageInput(height=4, width=4, channels=1)
COLOUR = ImageInput(height=4, width=4, channels=3)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def npy(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def decode(data: bytes, spec: ImageInput = GREY) -> np.ndarray[Any, Any]:
    return decode_item(data, spec, Limits())


def ramp(mode: str = "L") -> Image.Image:
    return Image.fromarray(np.arange(0, 160, 10, dtype=np.uint8).reshape(4, 4)).convert(mode)


def deep_ramp() -> Image.Image:
    return Image.fromarray(np.asarray(ramp()).astype(np.uint16) * 257)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "PPM", "TGA"])
def test_lossless_formats_give_the_same_pixels(form: str) -> None:
    assert np.array_equal(decode(encoded(ramp(), form))[..., 0], np.asarray(ramp()))


def test_lossy_formats_give_nearly_the_same_pixels() -> None:
    large = ImageInput(height=32, width=32, channels=1)
    image = ramp().resize((32, 32))
    for form in ("JPEG", "WEBP"):
        assert np.abs(decode(encoded(image, form), large)[..., 0].astype(int) - np.asarray(image)).max() < 12


def test_16_bit_grey_is_scaled_to_8() -> None:
    assert np.array_equal(decode(encoded(deep_ramp()))[..., 0], np.asarray(ramp()))


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_grey_and_colour(mode: str) -> None:
    data = encoded(ramp(mode), "TIFF")
    assert decode(data).shape == (4, 4, 1)
    assert decode(data, COLOUR).shape == (4, 4, 3)


@pytest.mark.parametrize("fill", [0, 255])
def test_transparent_pixels_take_the_fill(fill: int) -> None:
    data = encoded(Image.new("RGBA", (4, 4), (90, 90, 90, 0)))
    assert (decode(data, GREY.model_copy(update={"fill": fill})) == fill).all()


def test_exif_turns_the_picture_upright() -> None:
    image, exif = ramp(), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    assert np.array_equal(decode(encoded(image, exif=exif))[..., 0], np.rot90(np.asarray(image), -1))


def with_exif(image: Image.Image, *entries: tuple[int, int, int, bytes]) -> bytes:
    """A JPEG with exactly these tags: number, type, count, and four bytes of value."""
    body = b"".join(struct.pack(">HHI", tag, kind, count) + value for tag, kind, count, value in sorted(entries))
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries)) + body + bytes(4) + struct.pack(">II", 1, 2)
    return encoded(image, "JPEG", exif=exif, quality=100)


@pytest.mark.parametrize("tag", [(0x010F, 5, 1, struct.pack(">I", 38)), (0x011A, 2, 2, b"72\0\0")])
def test_other_tags_of_exif_may_be_wrong(tag: tuple[int, int, int, bytes]) -> None:  # Make a fraction, resolution text
    turned = with_exif(ramp(), (0x0112, 3, 1, b"\0\6\0\0"), tag)
    assert np.abs(decode(turned)[..., 0] - np.rot90(np.asarray(ramp()), -1).astype(int)).max() < 5


def test_exif_that_cannot_be_read_leaves_the_picture_as_it_is() -> None:
    assert np.array_equal(decode(encoded(ramp(), exif=b"Exif\0\0rubbish"))[..., 0], np.asarray(ramp()))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_every_format_is_turned_once(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    assert np.array_equal(decode(encoded(ramp(), form, exif=exif, **options))[..., 0], np.rot90(np.asarray(ramp()), -1))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_turned_once(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(decode(encoded(deep_ramp(), form, exif=exif))[..., 0], np.rot90(np.asarray(ramp()), -1))


def test_the_transparent_grey_of_16_bits_takes_the_fill() -> None:
    pixels = decode(encoded(deep_ramp(), transparency=50 * 257), GREY.model_copy(update={"fill": 255}))[..., 0]
    assert pixels.tolist() == np.where(np.asarray(ramp()) == 50, 255, np.asarray(ramp())).tolist()


@pytest.mark.parametrize("image", ["ramp", "deep_ramp"])
def test_where_white_is_zero_the_picture_is_no_negative(image: str) -> None:
    data = encoded({"ramp": ramp, "deep_ramp": deep_ramp}[image](), "TIFF", tiffinfo={262: 1})
    negative = data.replace(struct.pack("<HHIHH", 262, 3, 1, 1, 0), struct.pack("<HHIHH", 262, 3, 1, 0, 0))
    assert np.array_equal(decode(negative)[..., 0], 255 - np.asarray(ramp()))


@pytest.mark.parametrize("white", [65_536, 2**31 + 1, 2**32 - 1])
def test_pixels_of_32_bits_are_refused_rather_than_guessed_at(white: int) -> None:
    signed = np.full((4, 4), white, np.uint32).view(np.int32)
    data = encoded(Image.fromarray(signed), "TIFF")
    unsigned = data.replace(struct.pack("<HHIHH", 339, 3, 1, 2, 0), struct.pack("<HHIHH", 339, 3, 1, 1, 0))
    with pytest.raises(InputError, match="32 bits have no known range; save"):
        decode(unsigned)


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_whatever_a_decoder_raises_means_a_broken_file(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_image: Image.Image) -> None:
        raise error("in a plugin")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(InputError, match=r"broken image file .in a plugin.; save it again"):
        decode(encoded(ramp()))


@pytest.mark.parametrize(("rule", "corners"), [("fit", (0, 0)), ("stretch", (200, 200)), ("crop", (200, 200))])
def test_resize_rules(rule: str, corners: tuple[int, int]) -> None:
    spec = ImageInput.model_validate({"height": 4, "width": 4, "channels": 1, "resize": rule})
    pixels = decode(encoded(Image.new("L", (40, 10), 200)), spec)
    assert (pixels[0, 0, 0], pixels[3, 3, 0]) == corners
    assert pixels[1, 2, 0] == 200


def test_a_line_of_pixels_is_an_image_too() -> None:
    pixels = decode(encoded(Image.new("L", (5000, 1), 200)))
    assert pixels[..., 0].max(axis=1).tolist() == [0, 200, 0, 0]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_input"),
        (b"just text", "undecodable"),
        (encoded(ramp())[:50], "undecodable"),
        (encoded(Image.new("L", (5000, 5000))), "too_many_pixels"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "undecodable"),
        (npy(np.zeros((4, 4, 3), np.uint8)), "wrong_shape"),
        (npy(np.zeros((4, 4), np.float32)), "wrong_dtype"),
        (npy(np.zeros((4, 4), np.float64)), "wrong_dtype"),
        (npy(np.zeros((4, 4), ">f4")), "wrong_dtype"),
        (npy(np.array([{}]), allow_pickle=True), "wrong_dtype"),
        (npy(np.zeros((4, 4), np.uint8))[:-1], "undecodable"),
        (npy(np.zeros((4, 4), np.uint8)).replace(b"(4, 4)", b"(4,-4)"), "undecodable"),
        (npy(np.zeros((4, 4), np.uint8)).replace(b"'descr'", b"'descr "), "undecodable"),
        (npy(np.zeros((0, 1), np.uint8)).replace(b"(0, 1), ", b"(0, 9**9)"), "undecodable"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_what_cannot_be_used_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(InputError) as refused:
        decode(data)
    assert refused.value.code == code
    assert ";" in refused.value.detail  # the remedy follows the reason


def test_an_npy_file_in_fortran_order_is_read_as_it_was_meant() -> None:
    pixels = np.asfortranarray(np.asarray(ramp()))
    assert np.array_equal(decode(npy(pixels))[..., 0], pixels)


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 4, 4, 1)])
def test_a_batch_of_grey_images_may_leave_out_the_channel(shape: tuple[int, ...]) -> None:
    assert decode_batch(npy(np.zeros(shape, np.uint8)), GREY, Limits()).shape == (3, 4, 4, 1)


def test_nested_numbers_are_told_apart_by_their_shape() -> None:
    one = np.asarray(ramp()).tolist()
    assert len(decode_numbers(one, GREY, Limits()) or []) == 1
    assert len(decode_numbers([one] * 5, GREY, Limits()) or []) == 5
    with pytest.raises(InputError, match="whole numbers"):
        decode_numbers((np.asarray(ramp()) / 255).tolist(), GREY, Limits())
    with pytest.raises(InputError, match=r"the model takes \(4, 4, 1\)"):
        decode_numbers([[1, 2], [3, 4]], GREY, Limits())


@pytest.mark.data
def test_unusual_but_valid_images_load(data_dir: Path) -> None:
    files = sorted((data_dir / "formats" / "images").iterdir())
    assert len(files) >= 28
    for file in files:
        assert decode(file.read_bytes(), COLOUR).shape == (4, 4, 3), file.name
