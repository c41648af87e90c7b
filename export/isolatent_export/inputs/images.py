"""Image files to pixels: PNG, JPEG, WebP, GIF, BMP, TIFF, PPM and TGA, of any mode, to uint8 (H, W, C).

The header is read first; what it announces is compared with the limits before a pixel is decoded.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.manifest import ImageInput

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA")
"""Only these decoders are ever started on a file from outside."""

_DECODER_ERRORS = (
    *(OSError, ValueError, TypeError, SyntaxError, IndexError, KeyError, EOFError, OverflowError),
    *(AttributeError, RuntimeError, struct.error),
)
# What Pillow's plugins raise on broken files, beside MemoryError.

_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# By the orientation that EXIF states; 1 is upright.


def decode(data: bytes, spec: ImageInput, limits: Limits) -> NDArray[np.uint8]:
    """Pixels (H, W, C) of the first frame, turned upright by EXIF, on the spec's fill, resized by the spec's rule.

    Deeper than 8 bits is scaled to 8; transparency is laid over `fill`; colour and grey are converted as needed.
    Raises InputError: `undecodable`, or `too_many_pixels` before decoding.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > limits.pixels:
                raise _too_many_pixels(f"{image.width} x {image.height} pixels", limits)
            image.load()  # PNG may tell its orientation after its pixels, and Pillow turns TIFF itself
            upright = _turned(_to_8_bit(image), _orientation(image))
            return np.asarray(_resize(_flatten(upright, spec), spec), np.uint8).reshape(spec.shape)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels("a decompression bomb", limits) from None
    except UnidentifiedImageError:
        raise InputError("undecodable", f"not an image of a known format; send one of {', '.join(FORMATS)}") from None
    except (*_DECODER_ERRORS, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InputError("undecodable", f"broken image file ({reason}); save it again with an image program") from None


def _too_many_pixels(what: str, limits: Limits) -> InputError:
    return InputError("too_many_pixels", f"{what}, the limit is {limits.pixels}; scale the image down first")


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise InputError("undecodable", "floating point pixels have no known range; save the image with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    deep = _samples(image)
    if deep.max() > 65535:
        raise InputError("undecodable", "pixels of 32 bits have no known range; save the image with 8 or 16 bits")
    eight = Image.fromarray((np.clip(deep, 0, 65535) / 257 + 0.5).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # one of the 16-bit greys, which several levels of 8 bits would share
        eight.putalpha(Image.fromarray(np.where(deep == transparent, 0, 255).astype(np.uint8)))
    return eight


def _samples(image: Image.Image) -> NDArray[np.int64]:
    """Grey of 16 bits (H, W), also where Pillow widens it to 32, as the file means it."""
    samples, tags = np.asarray(image), image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if tags and image.mode == "I" and tags.get(SAMPLEFORMAT, (1,))[0] == 1:  # unsigned, which Pillow reads as signed
        samples = samples.view(np.uint32)
    deep = samples.astype(np.int64)
    return 65535 - deep if tags.get(PHOTOMETRIC_INTERPRETATION) == 0 else deep  # 0: white is zero


def _orientation(image: Image.Image) -> Any:
    """What EXIF or XMP state. Nothing else is read or written there: a wrong tag must not cost the picture."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except _DECODER_ERRORS:
        return None


def _turned(image: Image.Image, orientation: Any) -> Image.Image:
    turn = _TO_UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _flatten(image: Image.Image, spec: ImageInput) -> Image.Image:
    target = "L" if spec.channels == 1 else "RGB"
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        background = Image.new("RGBA", image.size, (spec.fill, spec.fill, spec.fill, 255))
        return Image.alpha_composite(background, image.convert("RGBA")).convert(target)
    return image if image.mode == target else image.convert(target)


def _resize(image: Image.Image, spec: ImageInput) -> Image.Image:
    size = (spec.width, spec.height)
    if image.size == size:
        return image
    bilinear = Image.Resampling.BILINEAR  # with Pillow's antialiasing when shrinking
    if spec.resize == "stretch":
        return image.resize(size, bilinear)
    if spec.resize == "crop":
        return ImageOps.fit(image, size, bilinear)
    scale = min(spec.width / image.width, spec.height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))  # ImageOps.pad rounds to 0
    frame = Image.new(image.mode, size, spec.fill if spec.channels == 1 else (spec.fill,) * 3)
    frame.paste(image.resize(inner, bilinear), ((spec.width - inner[0]) // 2, (spec.height - inner[1]) // 2))
    return frame
