"""Requests as bytes that are almost right: what a broken or a malicious client may send instead of HTTP."""

from __future__ import annotations

import random
from collections.abc import Callable

HEADERS = (
    b"Content-Type", b"Content-Length", b"Content-Encoding", b"Transfer-Encoding", b"Accept", b"Accept-Encoding",
    b"Authorization", b"Connection", b"Cookie", b"Expect", b"Host", b"Inference-Header-Content-Length", b"Origin",
    b"Range", b"Upgrade", b"X-Request-Id", b"traceparent", b"X-Forwarded-For",
)  # fmt: skip
ODD = (
    b"", b" ", b"\0", b"\xff\xfe", "\u0391\u20ac".encode(), b"\x7f", b"\t", b"a" * 9000, b"%00", b"-1", b"+5", b"1e9",
    b"0x10", b"5, 5", b"9" * 30, b"chunked, chunked", b"gzip", b"close, keep-alive", b"100-continue", b"h2c",
    b"*/*;q=x", b"multipart/form-data", b"multipart/form-data; boundary=", b"application/json; charset=utf-7", b"{}",
)  # fmt: skip
METHODS = (b"GET", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"post", b"P\0ST", b"M" * 5000, b"")
TARGETS = (
    b"*", b"/", b"//", b"/v1/../v1/models", b"http://x/v1/models", b"/v1/posteriors?model=%zz", b"/v1/models/%00",
    b"/v1/models/%ff%fe", b"/v1/posteriors?" + b"a=b&" * 2000, b"/v1/posteriors?model=\xff", b"/v1/posteriors?\0",
    b"/v1/models/" + b"x" * 9000, b"/v2/models/%2e%2e/infer", b"/v1/posteriors#x", b"?",
    b"/v1/posteriors?model=tiny&model=tiny", b"/v1/posteriors?samples=1e400", b"/docs",
    b"/v2/models/tiny/versions/%C3%A9/infer", b"/v1/posteriors/",
)  # fmt: skip
VERSIONS = (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.11", b"HTTP/1.1 HTTP/1.1", b"", b"http/1.1", b"HTTP/9.9")


class Mutations:
    """Ways to spoil a request. Several may meet in one."""

    def __init__(self, numbers: random.Random) -> None:
        self._random = numbers
        self._ways: list[Callable[[bytes], bytes]] = [
            self._flip_head,
            self._flip_body,
            self._odd_header,
            self._lying_length,
            self._broken_chunks,
            self._garbage_after,
            self._another_method,
            self._another_target,
            self._another_version,
            self._many_headers,
            self._other_line_ends,
            self._cut,
            self._twice,
        ]

    def spoil(self, request: bytes) -> bytes:
        """The request, spoilt in one to three ways."""
        for way in self._random.sample(self._ways, self._random.choice([1, 1, 1, 2, 3])):
            request = way(request)
        return request

    def pieces(self, data: bytes) -> list[bytes]:
        """The bytes as they are sent: at once or, now and then, bit by bit."""
        if self._random.random() < 0.8:
            return [data]
        cuts = sorted(self._random.randint(0, len(data)) for _ in range(3))
        return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def _flip(self, data: bytes) -> bytes:
        spoilt = bytearray(data)
        for _ in range(self._random.randint(1, 4) if data else 0):
            spoilt[self._random.randrange(len(spoilt))] = self._random.randrange(256)
        return bytes(spoilt)

    def _flip_head(self, request: bytes) -> bytes:
        head, body = _split(request)
        return self._flip(head) + body

    def _flip_body(self, request: bytes) -> bytes:
        head, body = _split(request)
        return head + self._flip(body)

    def _odd_header(self, request: bytes) -> bytes:
        name, value = self._random.choice(HEADERS), self._random.choice(ODD)
        if self._random.random() < 0.1:
            name += self._random.choice([b"\xe9", b" ", b"\0", b"x" * 3000])
        return _with_header(request, name + b": " + value)

    def _lying_length(self, request: bytes) -> bytes:
        head, body = _split(request)
        lie = self._random.choice([0, 1, len(body) - 1, len(body) + 1, len(body) + 5000, -1, 2**31, 2**64, 10**40])
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
        if self._random.random() < 0.3:
            lines.insert(1, b"Content-Length: %d" % len(body))  # two that differ
        lines.insert(1, b"Content-Length: %d" % lie)
        return b"\r\n".join(lines) + body

    def _broken_chunks(self, request: bytes) -> bytes:
        head, body = _split(request)
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
        if self._random.random() < 0.2:
            lines.insert(1, b"Content-Length: %d" % len(body))  # which of the two counts?
        lines.insert(
            1, b"Transfer-Encoding: " + self._random.choice([b"chunked", b"Chunked", b"xchunked", b"gzip, chunked"])
        )
        size = self._random.choice(
            [b"%x" % len(body), b"-1", b"g", b"f" * 20, b"%x" % (len(body) + 9), b"", b"5;a=\0", b"0"]
        )
        end = self._random.choice([b"\r\n0\r\n\r\n", b"\r\n0\r\nX: y\r\n\r\n", b"0\r\n\r\n", b"\r\n", b"\n0\n\n", b""])
        return b"\r\n".join(lines) + size + b"\r\n" + body + end

    def _garbage_after(self, request: bytes) -> bytes:
        return request + self._random.choice(
            [self._random.randbytes(200), b"\r\n\r\n", b"GET", b"\0" * 70_000, b"x" * 5]
        )

    def _another_method(self, request: bytes) -> bytes:
        return self._random.choice(METHODS) + b" " + request.partition(b" ")[2]

    def _another_target(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        return method + b" " + self._random.choice(TARGETS) + b" " + rest.partition(b" ")[2]

    def _another_version(self, request: bytes) -> bytes:
        line, _, rest = request.partition(b"\r\n")
        return line.rpartition(b" ")[0] + b" " + self._random.choice(VERSIONS) + b"\r\n" + rest

    def _many_headers(self, request: bytes) -> bytes:
        count, length = self._random.choice([(100, 50), (3000, 1), (5000, 20), (1, 100_000)])
        return _with_header(request, b"\r\n".join(b"X-%d: %b" % (n, b"y" * length) for n in range(count)))

    def _other_line_ends(self, request: bytes) -> bytes:
        head, body = _split(request)
        ends = self._random.choice([b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\r\r\n", b"\0\r\n"])
        return head.replace(b"\r\n", ends, self._random.choice([1, 2, -1])) + body

    def _cut(self, request: bytes) -> bytes:
        return request[: self._random.randint(1, len(request))]

    def _twice(self, request: bytes) -> bytes:
        return request * 2


def _split(request: bytes) -> tuple[bytes, bytes]:
    head, end, body = request.partition(b"\r\n\r\n")
    return head + end, body


def _with_header(request: bytes, header: bytes) -> bytes:
    line, end, rest = request.partition(b"\r\n")
    return line + end + header + end + rest
