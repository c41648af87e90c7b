"""Choosing the answer's format from the Accept header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from isolatent_serve.problems import Problem


@lru_cache(maxsize=256)
def negotiate(accept: str | None, offers: tuple[str, ...]) -> str:
    """The offered media type the client likes best; among equals the first offered. None accepts anything.

    Raises Problem `not_acceptable` when the client wants none of `offers`.
    """
    if not accept or accept == "*/*":
        return offers[0]
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    quality, best = max(((_quality(offer, ranges), -place) for place, offer in enumerate(offers)), default=(0.0, 0))
    if quality <= 0:
        raise Problem("not_acceptable", f"Accept: {accept[:200]}: ask for {' or '.join(offers)}")
    return offers[-best]


def _range(part: str) -> tuple[str, float]:
    media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        return media_type, float(quality)
    except ValueError:
        return media_type, 0.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that matches `offer`; 0 when none does."""
    for pattern in (offer, offer.partition("/")[0] + "/*", "*/*"):
        for media_type, quality in ranges:
            if media_type == pattern:
                return quality
    return 0.0
