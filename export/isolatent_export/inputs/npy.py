"""The npy format read without trust: the header is compared with the bytes that are there, nothing is unpickled."""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from isolatent_export.inputs.errors import InputError

MAGIC = npy_format.MAGIC_PREFIX

PIXELS = (np.dtype("u1"), np.dtype("<f4"))
"""What a file of images may hold: pixels, and floats, which are refused later with advice of their own."""

_DEEPEST = 8  # far more axes than any input has, far fewer than NumPy's limit

_SHORT = 256
"""Bytes; numpy.save writes 118."""

_HEADER_ERRORS = (ValueError, SyntaxError, TypeError, EOFError, RecursionError, MemoryError, tokenize.TokenError)
# What NumPy's header parser raises on text that is not one.


def parse(
    data: bytes, takes: Callable[[np.dtype[Any]], bool] = PIXELS.__contains__, wanted: str = "uint8 pixels"
) -> NDArray[Any]:
    """The array in the npy file `data`, as a view of it, where `takes` says yes to its dtype; errors name the `wanted`.

    Raises InputError for anything else, among it object arrays and headers that claim more or less than is there.
    """
    shape, fortran, dtype, start = _header(data)
    if dtype.hasobject or not takes(dtype):
        raise InputError("wrong_dtype", f"npy dtype {str(dtype)[:80]}; send {wanted}")
    if len(shape) > _DEEPEST or any(not isinstance(side, int) or not 0 <= side <= len(data) for side in shape):
        raise InputError("undecodable", f"npy shape of {len(shape)} axes is not possible; write it with numpy.save")
    body = len(data) - start
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != body:
        raise InputError("undecodable", f"npy header claims {claimed} bytes, {body} follow; the file is cut or forged")
    flat: NDArray[Any] = np.frombuffer(data, dtype, offset=start)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def has_short_header(data: bytes) -> bool:
    """Whether the header of the npy file `data` is read in no time: NumPy takes 20 ms for the longest."""
    return data[6:8] == b"\x01\x00" and int.from_bytes(data[8:10], "little") <= _SHORT


def shape_of(data: bytes) -> tuple[int, ...] | None:
    """What the header of the npy file `data` claims; None where there is none, or one of named fields."""
    try:
        shape, _, dtype, _ = _header(data)
    except InputError:
        return None
    return None if dtype.names else shape


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether the first axis runs fastest, dtype, and where the elements start."""
    stream = io.BytesIO(data)
    try:
        version = npy_format.read_magic(stream)
        read_header = {
            (1, 0): npy_format.read_array_header_1_0,
            (2, 0): npy_format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise InputError("undecodable", f"npy version {version}; write it with numpy.save")
        return *read_header(stream), stream.tell()
    except InputError:
        raise
    except _HEADER_ERRORS as error:
        raise InputError("undecodable", f"not an npy file ({_first_line(error)}); write it with numpy.save") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
