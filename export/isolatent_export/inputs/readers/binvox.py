"""Binvox: a run-length encoded grid of voxels; its points are the centres of the filled ones."""

from __future__ import annotations

import math
import re

import numpy as np

from isolatent_export.inputs.errors import Limits
from isolatent_export.inputs.readers.common import Geometry, lines, require_few

_DATA = re.compile(rb"^[ \t]*data[ \t]*\r?\n", re.MULTILINE)
_LONGEST_HEADER = 65_536


def read(data: bytes, limits: Limits) -> Geometry:
    """Centres of filled voxels in the units of the file. Raises InputError or ValueError."""
    start = _DATA.search(data, 0, _LONGEST_HEADER)
    if start is None:
        raise ValueError("no line `data`")
    header = {line.split()[0]: line.split()[1:] for line in lines(data[: start.start()], b"#")}
    depth, height, width = (int(side) for side in header[b"dim"])
    translate = [float(number) for number in header.get(b"translate", [b"0"] * 3)]
    scale = float(header.get(b"scale", [b"1"])[0])
    runs = np.frombuffer(data, np.uint8, offset=start.end())
    if len(runs) % 2 or min(depth, height, width) < 1:
        raise ValueError("the file is cut, or its grid is empty")
    filled, lengths = runs[0::2] != 0, runs[1::2]
    voxels = int(lengths.sum(dtype=np.int64))
    if voxels != math.prod((depth, height, width)):
        raise ValueError(f"a grid of {depth} x {height} x {width} announced, {voxels} voxels there")
    sizes = lengths[filled].astype(np.int64)
    require_few(int(sizes.sum()), limits, "filled voxels")
    starts = np.cumsum(lengths, dtype=np.int64)[filled] - sizes
    places = np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
    x, z, y = np.unravel_index(places, (depth, width, height))  # y runs fastest, then z, then x
    centres = (np.stack([x, y, z], axis=1) + 0.5) / max(depth, height, width)
    return Geometry(centres * scale + translate)
