"""The socket that a service listens on: bound before anything is loaded, announced, closed without losing anybody."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import logging
import socket
import struct

from isolatent.cli import CommandError
from isolatent_serve.settings import Settings

log = logging.getLogger("isolatent_serve")

BACKLOG = 2048
"""Connections that the kernel holds until they are accepted."""
UNSENT_BYTES = 128 * 2**10
"""What the kernel takes of an answer beyond what the client is ready to receive."""


def bind(settings: Settings) -> socket.socket:
    """The listening socket. Raises CommandError when the address cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise CommandError(
            f"cannot listen on {settings.host} port {settings.port} ({reason}); "
            "choose other values for --host and --port (--port 0 takes a free one)"
        ) from None
    # Every connection inherits these. Without the second one the kernel takes megabytes of an answer that nobody reads.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    if not settings.keys and not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        log.warning(
            "listening on %s: everyone who can reach this address can use the service, there is no authentication; "
            "give --keys, put a proxy that authenticates in front of it, or leave out --host",
            settings.host,
        )
    return listener


def announce(listener: socket.socket, *, as_json: bool) -> None:
    """Print the address, for people or as one JSON object."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(json.dumps({"event": "listening", "url": url}) if as_json else f"Listening on {url}", flush=True)


def refuse_newcomers(listener: socket.socket) -> None:
    """Let no further connection begin, so that all who have connected can be accepted and answered before the end.

    Closing at once would reset those still in the kernel's queue. The packets that open connections are dropped
    instead; their senders repeat them within a second, and are refused by then.
    """
    program = b"".join(_INSTRUCTION.pack(*instruction) for instruction in _DROP_SYN)
    buffer = ctypes.create_string_buffer(program)
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DROP_SYN), ctypes.addressof(buffer))
        )


_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("HBBI")
"""Of the classic Berkeley packet filter: operation, jump if true, jump if false, operand."""
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the flags of the TCP header
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)
