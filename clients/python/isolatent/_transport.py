"""The connections of `Client`: each read and write gets the time that is left of its request then.

httpx2's own transport takes a limit at the beginning of a phase (connecting, sending, the headers, the body) and gives
it to every read and write of the phase anew: what comes in drips would have no end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ssl import SSLContext
from typing import Any
from urllib.request import getproxies

import httpcore2
import httpx2

from isolatent._options import LIMITS, tls
from isolatent._retry import TimeLeft

_SLICE = 2**14
"""Bytes of one write: no more than a connection takes at once when it takes any."""
_PROXIES = frozenset({"http", "https", "all"})


def client() -> httpx2.Client:
    """A client on these connections; on those of httpx2 where the environment names a proxy, which it knows to use."""
    if _PROXIES & getproxies().keys():
        return httpx2.Client(verify=tls(), limits=LIMITS)
    return httpx2.Client(transport=Transport())


class Transport(httpx2.BaseTransport):
    """A pool of connections. Limits that are a TimeLeft run out; others are for each read and write."""

    def __init__(self) -> None:
        self._pool = httpcore2.ConnectionPool(
            ssl_context=tls(),
            max_connections=LIMITS.max_connections,
            max_keepalive_connections=LIMITS.max_keepalive_connections,
            keepalive_expiry=LIMITS.keepalive_expiry,
            network_backend=_Backend(),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, whose body is still to be read."""
        url = request.url
        sent = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _errors():
            got = self._pool.handle_request(sent)
        return httpx2.Response(got.status, headers=got.headers, stream=_Body(got), extensions=got.extensions)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Body(httpx2.SyncByteStream):
    """The body of an answer."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _errors():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _Backend(httpcore2.NetworkBackend):
    """Opens connections."""

    def __init__(self) -> None:
        self._backend = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(
            self._backend.connect_tcp(
                host, port, _left(timeout, httpcore2.ConnectTimeout), local_address, socket_options
            )
        )


class _Stream(httpcore2.NetworkStream):
    """A connection."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _SLICE):
            self._stream.write(buffer[start : start + _SLICE], _left(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout, httpcore2.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, late: type[httpcore2.TimeoutException]) -> float | None:
    """What a limit is by now. Raises `late` when it has run out."""
    if not isinstance(timeout, TimeLeft):
        return timeout
    left = timeout.now()
    if left <= 0:
        raise late("the time is up")
    return left


@contextmanager
def _errors() -> Iterator[None]:
    """Those of the connections leave under the same names as httpx2's."""
    try:
        yield
    except (
        httpcore2.TimeoutException,
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.ProxyError,
        httpcore2.UnsupportedProtocol,
    ) as error:
        raise getattr(httpx2, type(error).__name__)(str(error)) from error
