"""Bearer keys: who may use the service. On every address but the probes, before a body is read.

The file has one key per line, `name:sha256:HEX` or `name:KEY`; empty lines and those that begin with # are skipped.
`isolatent keys new NAME` makes both. A changed file counts from the next second on.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from isolatent_serve.problems import Problem, render

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""What supervisors and load balancers ask without a key."""

LOOK_SECONDS = 1.0
"""How often the file is looked at."""

SHORTEST = 16
"""Characters of a key: those that people think up are shorter, and found by trying."""

log = logging.getLogger("isolatent_serve.keys")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_KEY = re.compile(rf"[!-~]{{{SHORTEST},512}}")  # what a header carries
_FORBIDDEN = stat.S_IWGRP | stat.S_IRWXO


class KeysError(ValueError):
    """A file of keys that cannot be used. The message is one line, names the remedy and holds no key."""


@dataclass(frozen=True)
class Key:
    """A key by its name and SHA-256; the key itself is not kept."""

    name: str
    digest: bytes = field(repr=False)


def digest(key: str) -> bytes:
    """SHA-256 of a key. Keys are long and random: a slow hash would gain nothing."""
    return hashlib.sha256(key.encode()).digest()


def find(keys: Sequence[Key], given: str) -> str | None:
    """The name of the key `given`, None for an unknown one.

    Compares with every key, whichever is the right one: the time that takes tells nothing about them.
    """
    presented, found = digest(given), None
    for key in keys:
        if hmac.compare_digest(presented, key.digest):
            found = key.name
    return found


def read(path: Path) -> tuple[Key, ...]:
    """The keys in a file, at least one. Raises KeysError."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & _FORBIDDEN:
                raise KeysError(f"{path}: mode {mode:04o} lets others read or change it; run: chmod 640 {path}")
            keys = parse(file.read(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise KeysError(f"{path}: {reason}; give a file of keys that the service may read") from None
    if not keys:
        raise KeysError(f"{path}: no keys; add a line that isolatent keys new NAME prints")
    return keys


def parse(text: str, source: str) -> tuple[Key, ...]:
    """The keys in the text of a file; errors name it as `source`. Raises KeysError."""
    keys: dict[str, Key] = {}
    digests: set[bytes] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _parse_line(line.strip(), f"{source} line {number}")
        if key.name in keys or key.digest in digests:
            raise KeysError(f"{source} line {number}: its name or its key was there before; give each key one line")
        keys[key.name] = key
        digests.add(key.digest)
    return tuple(keys.values())


class KeyFile:
    """The keys in a file, as they were when it was last in order. Raises KeysError when it is not to begin with."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = read(path)
        self._seen = self._state()
        self._look_at = time.monotonic() + LOOK_SECONDS

    def find(self, given: str) -> str | None:
        """The name of the key `given`, None for an unknown one. A changed file is read first."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if self._state() != self._seen:
                self.reload()
        return find(self._keys, given)

    def name(self, given: Sequence[str]) -> str:
        """The name of the key in a request's `Authorization` headers. Raises Problem `missing_key`, `invalid_key`."""
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        key = key.strip(" ")
        if scheme.lower() != "bearer" or not key:
            detail = "this service wants a key; send it once, as in Authorization: Bearer KEY"
            raise Problem("missing_key", detail, headers={"WWW-Authenticate": "Bearer"})
        name = self.find(key)
        if name is None:
            detail = "no such key; ask who runs this service for one"
            raise Problem("invalid_key", detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return name

    def reload(self) -> None:
        """Read the file now. What is wrong with it is logged, and the keys stay as they were."""
        self._seen = self._state()
        try:
            self._keys = read(self._path)
        except KeysError as error:
            log.error("%s; the old keys stay in use", error)
        else:
            log.info("%d keys read from %s", len(self._keys), self._path)

    def _state(self) -> tuple[int, ...] | None:
        try:
            now = self._path.stat()
        except OSError:
            return None
        return now.st_ino, now.st_size, now.st_mtime_ns, now.st_mode


class RequireKey:
    """ASGI middleware that answers 401 to requests without a known key; `request.state.key` is the key's name."""

    def __init__(self, app: ASGIApp, keys: KeyFile) -> None:
        self.app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        try:
            scope["state"]["key"] = self._keys.name(Headers(scope=scope).getlist("Authorization"))
        except Problem as problem:
            await render(problem, Request(scope))(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _parse_line(line: str, where: str) -> Key:
    name, _, secret = line.partition(":")
    if not _NAME.fullmatch(name) or not secret:
        raise KeysError(f"{where}: expected NAME:KEY or NAME:sha256:HEX, the name of up to 64 of A-Za-z0-9._-")
    if secret.startswith("sha256:"):
        hexadecimal = secret.removeprefix("sha256:")
        if not _DIGEST.fullmatch(hexadecimal):
            raise KeysError(f"{where}: sha256: is followed by 64 hexadecimal digits; see isolatent keys new")
        return Key(name, bytes.fromhex(hexadecimal))
    if not _KEY.fullmatch(secret):
        raise KeysError(f"{where}: a key has {SHORTEST} to 512 visible ASCII characters; see isolatent keys new")
    return Key(name, digest(secret))
