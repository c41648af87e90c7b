"""Where files are: on this machine, or behind a URI. Everything that lists or reads goes through one of the two."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal, Protocol
from urllib.parse import unquote_to_bytes

from isolatent_serve.jobs.sources.inputs import Entry, Range, SourceError, SourceLimits
from isolatent_serve.jobs.sources.local import Local


class Place(Protocol):
    """Files and folders of one storage. `path` is what `place_of` gives, and what was joined to it with "/"."""

    def kind(self, path: str) -> Literal["file", "folder"] | None:
        """What is at `path`; None: nothing that can be read. Raises SourceError when that cannot be told."""

    def entries(self, path: str) -> Iterator[Entry]:
        """What a folder has in it, hidden names too, sorted by name. Raises SourceError."""

    def open(self, path: str) -> BinaryIO:
        """A file, to read at any position. Raises OSError."""

    def stamp(self, path: str) -> str:
        """What is another when a file has been replaced. Raises OSError."""

    def read(self, ranges: Sequence[Range]) -> list[bytes | Exception]:
        """The bytes of each range, or what went wrong with it."""

    def uri(self, path: str) -> str:
        """How a Locator names the file at `path`; `place_of` leads back."""

    def close(self) -> None:
        """Let go of what stays open between reads."""


def place_of(uri: str, limits: SourceLimits) -> tuple[Place, str]:
    """Where `uri` is, and its path there. Raises SourceError: unknown scheme, missing package, out of reach."""
    if uri.startswith("file://"):
        uri = os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))
    if "://" not in uri:
        return Local(limits.roots), uri
    if limits.roots is not None:
        raise SourceError(f"{uri[:80]}: addresses are not fetched; name a file below an allowed folder, or upload it")
    from isolatent_serve.jobs.sources.remote import locate  # fsspec is an extra, and only this needs it

    return locate(uri)
