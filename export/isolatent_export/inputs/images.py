"""Image files to pixels: PNG, JPEG, WebP, GIF, BMP, TIFF, PPM and TGA, of any mode, to uint8 (H, W, C).

The header is read first; what it announces is compared with the limits before a pixel is decoded.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.manifest import ImageInput

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA")
"""Only these decoders are ever started on a file from outside."""

_DECODER_ERRORS = (OSError, ValueError, TypeError, SyntaxError, IndexError, KeyError, EOFError, OverflowError)
# What Pillow's plugins raise on broken files, beside struct.error and MemoryError.


def decode(data: bytes, spec: ImageInput, limits: Limits) -> NDArray[np.uint8]:
    """Pixels (H, W, C) of the first frame, turned upright by EXIF, on the spec's fill, resized by the spec's rule.

    Deeper than 8 bits is scaled to 8; transparency is laid over `fill`; colour and grey are converted as needed.
    Raises InputError: `undecodable`, or `too_many_pixels` before decoding.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > limits.pixels:
                raise _too_many_pixels(f"{image.width} x {image.height} pixels", limits)
            upright = _turned(_to_8_bit(image))
            return np.asarray(_resize(_flatten(upright, spec), spec), np.uint8).reshape(spec.shape)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels("a decompression bomb", limits) from None
    except UnidentifiedImageError:
        raise InputError("undecodable", f"not an image of a known format; send one of {', '.join(FORMATS)}") from None
    except (*_DECODER_ERRORS, struct.error, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InputError("undecodable", f"broken image file ({reason}); save it again with an image program") from None


def _too_many_pixels(what: str, limits: Limits) -> InputError:
    return InputError("too_many_pixels", f"{what}, the limit is {limits.pixels}; scale the image down first")


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, also where Pillow widens them to 32
        deep = np.asarray(image).astype(np.int64)
        eight = Image.fromarray((np.clip(deep, 0, 65535) / 257 + 0.5).astype(np.uint8))
        eight.info = {key: value for key, value in image.info.items() if key == "exif"}
        return eight
    if image.mode == "F":
        raise InputError("undecodable", "floating point pixels have no known range; save the image with 8 or 16 bits")
    return image


def _turned(image: Image.Image) -> Image.Image:
    image.load()  # PNG may tell its orientation after its pixels
    return ImageOps.exif_transpose(image) if image.info else image


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
