"""What a source lists, and what can be wrong with it: values that every kind of source shares."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from isolatent_export.inputs import InputError, Limits

Modality = Literal["image", "point_cloud"]

Kind = Literal["file", "slice", "unpacked", "zip", "row"]

_ANY = (".npy",)

SUFFIXES: dict[Modality, tuple[str, ...]] = {
    "image": (
        *_ANY,
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
    ),
    "point_cloud": (
        *_ANY,
        *(".ply", ".pcd", ".off", ".obj", ".stl", ".glb", ".las", ".laz", ".npz", ".binvox"),
        *(".xyz", ".xyzn", ".xyzrgb", ".pts", ".asc", ".txt", ".csv"),
    ),
}
"""By the modality of a model: how the names of its inputs end, in small letters."""


class SourceError(InputError):
    """Inputs that cannot be listed. `detail` is one line that says the reason and the remedy."""

    def __init__(self, detail: str) -> None:
        super().__init__("bad_source", detail)


class Locator(NamedTuple):
    """Where one item is. As JSON it is a list, and `Locator(*json.loads(line))` reads it back.

    file      the whole file `uri`, of `size` bytes where a listing told
    slice     `size` bytes of `uri` from `offset`, in a tar archive; extra: stamp of the archive
    unpacked  `size` bytes from `offset` of the file `uri` in the folder for what was unpacked. It is outside of what is
              allowed to be read, so that nothing but the listing of an archive may lead there
    zip       the member of `uri` whose header is at `offset`, `size` bytes packed; extra: name, method, CRC, bytes
    row       number `size` of row group `offset` of the table `uri`; extra: stamp of the table, column
    """

    kind: Kind
    uri: str
    """An absolute path or a URI with a scheme; of what was unpacked, a name."""
    offset: int = 0
    size: int = -1
    extra: tuple[int | str, ...] = ()


class Input(NamedTuple):
    """One item to encode. `id` is its name: valid Unicode, with "/" between folders."""

    id: str
    locator: Locator


@dataclass(frozen=True, kw_only=True)
class SourceLimits:
    """What is accepted from sources. Each is checked before the memory or the space is taken."""

    item_bytes: int = Limits.item_bytes
    """Of one item. A larger one is an error of that item; the others are read."""
    archive_items: int = 10_000_000
    """Members of one archive, folders and files of other kinds included, or rows of one table."""
    archive_bytes: int = 2**40
    """Of all members of one archive, or of the columns of a table that are read, together, unpacked."""
    archive_ratio: int = 200
    """Unpacked bytes per packed byte of an archive as a whole. Uncompressed pictures of one colour reach 1000."""
    unpacked_bytes: int = 64 * 2**30
    """Of a compressed tar archive, which has to be unpacked to the disk as there is no other way into its middle."""
    free_bytes: int = 0
    """Left free on the disk that it is unpacked to."""
    table_megabytes: int = 2048
    """Memory, in MiB, that reading a table may take: programs write pages of up to a thousand files."""
    roots: tuple[str, ...] | None = None
    """Folders that hold all that is read, links resolved: then no URI is. None: anywhere, URIs too."""


@dataclass
class Skipped:
    """Files that were passed over while listing: how many, why, and the first of each kind."""

    counts: Counter[str] = field(default_factory=Counter)
    """By reason, such as `other suffix`, `hidden`, `no regular file`."""
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Count one more."""
        self.counts[reason] += 1
        self.first.setdefault(reason, name)


class Entry(NamedTuple):
    """What a folder has in it."""

    name: str
    kind: str
    """`file`, `folder`, or why it is neither."""
    size: int = -1
    """Bytes, where the listing tells."""


class Range(NamedTuple):
    """Bytes of a file from `start` to before `end`, or to its end where that comes first."""

    path: str
    start: int
    end: int


Wanted = Callable[[str], bool]
"""Whether a file of this name is an input."""

Check = Callable[[], None]
"""Called again and again while a listing finds nothing: raises what ends it."""


def unchecked() -> None:
    """A Check that lets everything go on."""


def wanted(modality: Modality | None) -> Wanted:
    """Whether the name of a file ends like an input of the modality, or of any."""
    suffixes = SUFFIXES[modality] if modality else (*SUFFIXES["image"], *SUFFIXES["point_cloud"])
    return lambda name: name.lower().endswith(suffixes)


def clean(name: str) -> str:
    """`name` as valid Unicode: bytes that are none are written as a backslash, x and two digits."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def unreadable(reason: object, limits: SourceLimits) -> InputError:
    """What is wrong with an item that was listed and cannot be read any more.

    With roots it is said in the same words of whatever the system says: what lies elsewhere is not told from what does
    not exist, nor where things are.
    """
    if isinstance(reason, OSError | ValueError) and limits.roots is not None:
        reason = "no plain file below an allowed folder"
    said = (isinstance(reason, OSError) and reason.strerror) or str(reason)
    lines = said.splitlines() or [type(reason).__name__]
    return InputError("unreadable", f"cannot be read any more ({lines[0][:160]}); put it back, or begin a new job")


def too_large(size: int, limits: SourceLimits) -> InputError:
    """What is wrong with an item of more bytes than one may have."""
    return InputError("too_many_bytes", f"{size} bytes, the limit is {limits.item_bytes} per item; make it smaller")
