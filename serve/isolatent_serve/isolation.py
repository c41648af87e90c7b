"""Which files are parsed in processes of their own, and which beside the service's other work."""

from __future__ import annotations

from isolatent_export.inputs import Limits, npy
from isolatent_export.manifest import InputSpec

_TRUSTED_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"BM", *(b"P%d" % kind for kind in range(1, 7)))
# PNG, JPEG, WebP, BMP, PPM: their headers are compared with the pixel limit before anything is decoded, their decoders
# are the most tested there are, and another process would cost more than decoding a small picture.


def needs_process(data: bytes, spec: InputSpec, limits: Limits) -> bool:
    """Whether `data` must not be decoded inside the service. The content decides, never a name or media type.

    npy files never: their header is compared with their length, the rest is taken as it is. Of image files all but
    PNG, JPEG, WebP, BMP and PPM: TIFF, GIF, TGA and what nobody knows. Of point cloud files all.
    """
    if data.startswith(npy.MAGIC) or not 0 < len(data) <= limits.item_bytes:  # refused at once, without being read
        return False
    return not (spec.modality == "image" and data.startswith(_TRUSTED_IMAGES))
