"""Many encoded inputs to one array, through the decoding function that the service uses, on several threads.

Items that cannot be read are left out and named; nothing is left out silently.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from isolatent_export.inputs import InputError, Limits, decode_item
from isolatent_export.manifest import InputSpec
from isolatent_train.data.forms import FORMS
from isolatent_train.data.splits import DataError, Rejected

LIMITS = Limits(item_bytes=256 * 2**20, pixels=64_000_000, points=20_000_000)
"""One's own files may be larger than those a service accepts from strangers: cameras make 61 megapixels, scanners
millions of points."""

THREADS = min(8, os.cpu_count() or 1)
CHUNK = 1024  # items queued at a time, so that memory holds few undecoded files
NAMED = 10  # rejected items named on stderr


@dataclass(frozen=True)
class Decoded:
    """Inputs (N, ...) of the items that could be read, their indices (N,), and the others."""

    inputs: NDArray[Any]
    kept: NDArray[np.int64]
    rejected: tuple[Rejected, ...]


def decode_all(
    names: Sequence[str], read: Callable[[int], bytes], spec: InputSpec, what: str, *, strict: bool
) -> Decoded:
    """Decode item i from the bytes `read(i)` for every name. `read` runs on several threads.

    Raises DataError when `strict` and an item cannot be read, when none can, or when memory cannot hold them.
    """
    form = FORMS[spec.modality]
    _require_memory(len(names), spec, what)
    inputs = np.empty((len(names), *spec.shape), form.dtype)
    reasons: dict[int, str] = {}

    def decode(index: int) -> str | None:
        try:
            inputs[index] = decode_item(read(index), spec, LIMITS)
        except InputError as error:
            return one_line(str(error))
        except OSError as error:
            return one_line(f"cannot be read ({error.strerror or error}); check the file")
        return None

    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=len(names), unit=form.noun, desc="decoding", disable=None, file=sys.stderr) as bar,
    ):
        warnings.filterwarnings("ignore", module="PIL")  # oddities in files that can be read all the same
        for start in range(0, len(names), CHUNK):
            chunk = range(start, min(start + CHUNK, len(names)))
            for index, reason in zip(chunk, pool.map(decode, chunk), strict=True):
                bar.update()
                if reason is None:
                    continue
                if strict:
                    raise DataError(f"{what}: {one_line(names[index])}: {reason} (data.strict stops at the first)")
                reasons[index] = reason

    rejected = tuple(Rejected(one_line(names[index]), reason) for index, reason in reasons.items())
    if len(rejected) == len(names):
        first = f" ({rejected[0].path}: {rejected[0].reason})" if rejected else ""
        raise DataError(f"{what}: none of {len(names)} files can be read as {form.noun}s{first}")
    kept = np.delete(np.arange(len(names)), list(reasons))
    return Decoded(inputs[kept] if rejected else inputs, kept, rejected)


def report(rejected: Sequence[Rejected], total: int, what: str) -> None:
    """Name the first rejected items on stderr; say nothing when there are none."""
    if not rejected:
        return
    print(f"{what}: {len(rejected)} of {total} left out:", file=sys.stderr)
    for item in rejected[:NAMED]:
        print(f"  {item.path}: {item.reason}", file=sys.stderr)
    if len(rejected) > NAMED:
        print(f"  and {len(rejected) - NAMED} more", file=sys.stderr)


def one_line(text: str) -> str:
    """`text` without characters that break a line, a table or an encoding."""
    encodable = text.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in encodable)


def _require_memory(count: int, spec: InputSpec, what: str) -> None:
    form = FORMS[spec.modality]
    needed = 2 * count * math.prod(spec.shape) * np.dtype(form.dtype).itemsize  # once more while they are split
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > physical:
        shape = " x ".join(map(str, spec.shape))
        raise DataError(
            f"{what}: {count} {form.noun}s of {shape} need {needed / 2**30:.0f} GiB, this machine has "
            f"{physical / 2**30:.0f}; set a smaller {form.smaller}"
        )
