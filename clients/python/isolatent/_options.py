"""What a client is told once: where the service is, the key, how long to wait. Shared by every kind of client."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from functools import cache

import httpx2

BASE_URL = "http://127.0.0.1:8000"
"""Where `isolatent serve` listens unless told otherwise."""
LONGEST = 1_000_000
"""The longest timeout in seconds: sockets take no more than 2**31 ms."""


@dataclass(frozen=True)
class Options:
    """Checked options. The key is in no representation."""

    base_url: str
    api_key: str | None = field(repr=False)
    timeout: float
    max_retries: int

    @classmethod
    def resolve(
        cls, base_url: str | None, api_key: str | None, timeout: float, max_retries: int, default: str = BASE_URL
    ) -> Options:
        """What is given, else what the environment says, else the default. Raises ValueError with the remedy."""
        if not 0 < timeout <= LONGEST:
            raise ValueError(f"timeout={timeout!r}, expected seconds above 0, {LONGEST} (11 days) at most")
        if max_retries < 0:
            raise ValueError(f"max_retries={max_retries!r}, expected 0 or more")
        url = base_url or os.environ.get("ISOLATENT_BASE_URL") or default
        key = api_key or os.environ.get("ISOLATENT_API_KEY") or None
        return cls(_checked_url(url), _checked_key(key), float(timeout), max_retries)

    @property
    def authorization(self) -> dict[str, str]:
        """The header that carries the key, none without a key."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


def _checked_url(text: str) -> str:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.userinfo:
        raise ValueError("base_url holds a user name or password; pass the key as api_key or in ISOLATENT_API_KEY")
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url {text!r} is no address; write it as {BASE_URL}")
    if url.query or url.fragment:
        raise ValueError(f"base_url {text!r} holds a query or fragment; leave it off")
    return text.rstrip("/")


def _checked_key(key: str | None) -> str | None:
    """The key, unless a header cannot carry it: the transport's own message would repeat it."""
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("the API key holds spaces, line ends or other characters that a header cannot carry")
    return key


LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=5.0)
"""Of a connection pool: as many as there are requests at once, which each call bounds with `concurrency`."""


@cache
def tls() -> ssl.SSLContext:
    """The trusted certificates, read once for all clients: that takes longer than a request."""
    return httpx2.create_ssl_context()
