"""What may be passed as an input, and what the refusals say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from isolatent import InputError, _questions
from isolatent._chunks import Work
from isolatent._inputs import Item, is_one, to_item


def decoded(item: Item) -> np.ndarray:  # type: ignore[type-arg]
    assert isinstance(item.data, bytes)
    return np.asarray(Image.open(io.BytesIO(item.data)))


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_read_and_named(kind, pngs: list[Path]) -> None:  # type: ignore[no-untyped-def]
    assert to_item(kind(pngs[0]), 4) == Item(4, str(pngs[0]), pngs[0].read_bytes())


def test_a_name_of_bytes_that_are_no_utf8_is_read(pngs: list[Path]) -> None:
    odd = pngs[0].rename(pngs[0].parent / "\udcff.png")
    assert to_item(odd).data == odd.read_bytes()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_contents_are_taken_as_they_are(kind) -> None:  # type: ignore[no-untyped-def]
    assert to_item(kind(b"png")).data == b"png"


def test_a_file_is_read_from_where_it_stands(pngs: list[Path]) -> None:
    with pngs[0].open("rb") as file:
        assert to_item(file) == Item(0, str(pngs[0]), pngs[0].read_bytes())
    assert to_item(io.BytesIO(b"png")).name == "input 0"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr", "LAB", "I"])
def test_a_picture_is_sent_without_loss(mode: str, pixels: np.ndarray) -> None:  # type: ignore[type-arg]
    rgb = Image.fromarray(np.stack([pixels[0], pixels[1], pixels[2]], -1))
    picture = Image.fromarray(pixels[0].astype(np.uint16) * 257) if mode == "I;16" else rgb.convert(mode)
    if mode == "LAB":
        picture = Image.merge("LAB", rgb.split())
    assert np.array_equal(decoded(to_item(picture)), np.asarray(picture))


@pytest.mark.parametrize(
    ("mode", "format"), [("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "TIFF"), ("CMYK", "TIFF"), ("RGB", "PNG")]
)
def test_a_picture_opened_from_a_file_stands_as_the_file_does(mode: str, format: str, tmp_path: Path) -> None:  # noqa: A002
    tags = Image.Exif()
    tags[0x0112] = 6
    picture = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3)).convert(mode)
    picture.save(tmp_path / "photo", format, exif=tags, **({"compression": "tiff_lzw"} if format == "TIFF" else {}))
    with Image.open(tmp_path / "photo") as opened:
        item = to_item(opened)
    assert isinstance(item.data, bytes)
    with Image.open(tmp_path / "photo") as file, Image.open(io.BytesIO(item.data)) as sent:
        upright = [np.asarray(ImageOps.exif_transpose(each)) for each in (file, sent)]
    assert upright[0].shape[:2] == (3, 2)
    assert np.array_equal(*upright)


def test_a_picture_opened_from_a_file_is_named_after_it(pngs: list[Path]) -> None:
    with Image.open(pngs[0]) as picture:
        assert to_item(picture, 2).name == str(pngs[0])


@pytest.mark.parametrize(
    ("shape", "one"),
    [
        ((16, 16), True), ((16, 16, 1), True), ((16, 16, 3), True),
        ((7, 16, 16), False), ((3, 16, 16), False), ((7, 16, 16, 1), False), ((7, 16, 16, 3), False),
    ],
)  # fmt: skip
def test_an_array_is_one_picture_or_a_batch_by_its_axes(shape: tuple[int, ...], one: bool) -> None:
    array = np.zeros(shape, np.uint8)
    assert is_one(array) is one
    (chunk,) = Work(_questions.embeddings(None), array, batch_size=64, concurrency=1).chunks()
    assert len(chunk.values) == (1 if one else shape[0])


def test_a_list_is_many_whatever_is_in_it() -> None:
    assert not is_one([np.zeros((16, 16), np.uint8)] * 2)
    assert not is_one(["a.png"])
    assert not is_one(path for path in ["a.png"])


@pytest.mark.parametrize("one", ["a.png", Path("a.png"), b"png", io.BytesIO(b"png"), Image.new("L", (2, 2)), {"a": 1}])
def test_things_that_could_be_iterated_are_one_input(one: object) -> None:
    assert is_one(one)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 4)), r"array \(4, 4\) of float64, expected the points .* a picture is uint8: .*array \* 255"),
        (np.zeros((4, 4), bool), r"astype\(numpy.uint8\) \* 255"),
        (np.zeros((4, 4), np.int64), r"pixels with array.astype\(numpy.uint8\), coord"),
        (np.zeros((4, 4), object), "several inputs as a list"),
        (np.zeros(4, np.uint8), r"expected one picture \(height, width\)"),
        (np.zeros((0, 4), np.uint8), r"array \(0, 4\)"),
        ("no-such.png", "no file 'no-such.png'; a text is taken as a path"),
        ("https://example.org/a.png", "URLs are not fetched"),
        ("data:image/png;base64," + "A" * 5000, "URLs are not fetched"),
        ("A" * 5000, "cannot be read"),
        ("a\0b", "is no path"),
        (b"", "0 bytes"),
        (io.BytesIO(), "0 bytes"),
        (io.StringIO("text"), 'open as text; open it with open\\(path, "rb"\\)'),
        (3, "is a int; allowed are a path"),
        ({"points": np.zeros((8, 3))}, "is a dict; pass what is in it"),
        (None, "is a NoneType; allowed"),
    ],
)
def test_an_unusable_input_is_refused_with_what_is_allowed(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        to_item(value, 3)
    assert str(caught.value).startswith("input 3")
    assert len(str(caught.value)) < 400


def test_a_directory_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a directory; pass its files, such as sorted\(Path\(.*\)\.glob"):
        to_item(tmp_path)


def test_a_closed_file_is_refused(pngs: list[Path]) -> None:
    with pngs[0].open("rb") as file:
        pass
    with pytest.raises(InputError, match="closed file"):
        to_item(file)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="cannot be read"):
        to_item(tmp_path / "loop")
