"""LAS and LAZ, the formats of laser scans from the air, by laspy and lazrs."""

from __future__ import annotations

import io
import struct

import numpy as np

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.inputs.readers.common import Geometry, require_few, require_module


def read(data: bytes, limits: Limits) -> Geometry:
    """Points in the units of the file. Raises InputError, or whatever laspy raises on a broken file."""
    _check_header(data, limits)
    laspy = require_module("laspy", "LAS")
    require_module("lazrs", "LAZ")
    try:
        with laspy.open(io.BytesIO(data), read_evlrs=False, laz_backend=laspy.LazBackend.Lazrs) as file:
            points = file.read()
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # from the Rust of lazrs; not an Exception
            raise ValueError("the packed points are damaged") from None
        raise
    return Geometry(np.asarray(points.xyz, np.float64))


def _check_header(data: bytes, limits: Limits) -> None:
    """Compare what the header announces with the limits and with the bytes that are there."""
    if len(data) < 227:
        raise ValueError("the header is cut")
    start, records, form, size, count = struct.unpack_from("<IIBHI", data, 96)
    if data[25] >= 4 and len(data) >= 255:  # from version 1.4 on counts have 64 bits
        count = struct.unpack_from("<Q", data, 247)[0]
    require_few(count, limits, "points")
    if start > len(data) or records * 54 > len(data):
        raise ValueError("the header points behind the end of the file")
    if form & 0x80:  # LAZ
        if count * size > limits.unpacked_bytes:
            raise InputError("too_many_points", f"{count * size} bytes unpacked, more than the limit; thin out")
        _check_chunks(data, start, count)
    elif start + count * size > len(data):
        raise ValueError(f"{count} points announced, the file is cut")


def _check_chunks(data: bytes, start: int, count: int) -> None:
    """Check the table of chunks: lazrs reserves room for as many as are announced, and aborts where there is none."""
    table = struct.unpack_from("<q", data, start)[0]
    if table == -1:  # written to a stream: the place of the table follows it
        table = struct.unpack_from("<q", data, len(data) - 8)[0]
    if not start < table <= len(data) - 8:
        raise ValueError("the table of chunks is missing")
    chunks = struct.unpack_from("<I", data, table + 4)[0]
    if chunks > max(count, 1):
        raise ValueError(f"{chunks} chunks announced for {count} points")
