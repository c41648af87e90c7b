"""What can be wrong with an input, and how large one may be."""

from __future__ import annotations

from dataclasses import dataclass


class InputError(ValueError):
    """An input that cannot be used. `code` is stable for programs, the message says the reason and the remedy."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Largest inputs accepted; each is checked before anything is decoded."""

    item_bytes: int = 32 * 2**20
    pixels: int = 16_000_000
    points: int = 2_000_000
    """Points of a cloud, or vertices or triangles of a mesh."""
    items: int = 1024
    decoded_bytes: int = 256 * 2**20
    """Of all inputs of one request together, as the arrays that an encoder takes."""

    @property
    def unpacked_bytes(self) -> int:
        """How much a compressed cloud may unpack to: xyz in double precision and about as much beside it, per point."""
        return 64 * self.points
