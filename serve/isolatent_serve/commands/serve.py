"""isolatent serve BUNDLE...: open and check bundles, bind, then verify on the real device while already answering."""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import signal
import socket
import sys
import time
import warnings
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from isolatent.cli import CommandError
from isolatent_export import Bundle, BundleError
from isolatent_serve.app import create_app
from isolatent_serve.service import Service
from isolatent_serve.settings import RequestLimits, Settings

log = logging.getLogger("isolatent_serve")

_DEFAULTS = Settings()
_LIMITS = _DEFAULTS.limits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="directory made by isolatent export")
    parser.add_argument("--host", default=_DEFAULTS.host, help="address to bind (default: %(default)s)")
    parser.add_argument("--port", default=_DEFAULTS.port, type=_port, help="0 takes a free port (default: %(default)s)")
    parser.add_argument("--device", default=_DEFAULTS.device, choices=("auto", "cpu", "cuda"), help="where models run")
    parser.add_argument("--threads", default=0, type=_count, metavar="N", help="cores per inference (default: all)")
    parser.add_argument(
        "--max-queue",
        default=_DEFAULTS.queue_items,
        type=_positive,
        metavar="N",
        help="inputs that wait for one model; more are answered with 429 (default: %(default)s)",
    )
    limits = parser.add_argument_group("limits per request")
    limits.add_argument("--max-request-bytes", default=_LIMITS.request_bytes, type=_positive, metavar="N")
    limits.add_argument("--max-pixels", default=_LIMITS.pixels, type=_positive, metavar="N", help="per image")
    limits.add_argument("--max-points", default=_LIMITS.points, type=_positive, metavar="N", help="per point cloud")
    limits.add_argument("--max-items", default=_LIMITS.items, type=_positive, metavar="N")
    limits.add_argument("--deadline", default=_LIMITS.deadline_seconds, type=_seconds, metavar="SECONDS")
    limits.add_argument(
        "--parse-timeout",
        default=_LIMITS.parse_seconds,
        type=_seconds,
        metavar="SECONDS",
        help="for one untrusted file, in a process of its own (default: %(default)g)",
    )
    limits.add_argument(
        "--parse-memory",
        default=_LIMITS.parse_megabytes,
        type=_megabytes,
        metavar="MIB",
        help="for one untrusted file, in a process of its own (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print where it listens as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Raises CommandError for bundles or addresses that cannot be served."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings quote what clients sent
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # remarks on what clients sent
    settings = _settings(args)
    bundles = [_open(path) for path in settings.bundles]
    failures: list[Exception] = []

    def refuse(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    try:
        app = create_app(settings, bundles, on_failure=refuse)
    except BundleError as error:
        raise CommandError(str(error)) from None
    server = _Server(app, settings)
    with _bind(settings) as listener:
        _exit_cleanly_on_signals(server)
        _announce(listener, as_json=args.json)
        server.run(sockets=[listener])
    if failures:
        raise CommandError(str(failures[0]))
    return 0


class _Server(uvicorn.Server):
    """uvicorn that drains first: it goes on listening, for probes, until the accepted requests are done."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(_uvicorn_config(app))
        self._service: Service = app.state.service
        self._patience = settings.limits.body_seconds + settings.limits.deadline_seconds
        self._end: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal ends that."""
        if self._end is not None:
            super().handle_exit(sig, frame)
            return
        self._service.drain()
        self._end = time.monotonic() + self._patience  # an accepted request may take this long

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop listening; uvicorn asks ten times a second."""
        late = self._end is not None and time.monotonic() > self._end
        return await super().on_tick(counter) or self._service.drained or late


def _settings(args: argparse.Namespace) -> Settings:
    limits = RequestLimits(
        request_bytes=args.max_request_bytes,
        pixels=args.max_pixels,
        points=args.max_points,
        items=args.max_items,
        deadline_seconds=args.deadline,
        parse_seconds=args.parse_timeout,
        parse_megabytes=args.parse_memory,
    )
    return Settings(
        bundles=tuple(args.bundles),
        host=args.host,
        port=args.port,
        device=args.device,
        threads=args.threads,
        queue_items=args.max_queue,
        limits=limits,
    )


def _open(path: Path) -> Bundle:
    try:
        bundle = Bundle.open(path)
        bundle.require_intact()
    except BundleError as error:
        raise CommandError(str(error)) from None
    return bundle


def _uvicorn_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,  # access.py logs requests, with their ids
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=5,  # for what is left once the service has drained
    )


def _bind(settings: Settings) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise CommandError(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror or error}); "
            "choose other values for --host and --port (--port 0 takes a free one)"
        ) from None
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        log.warning(
            "listening on %s: everyone who can reach this address can use the service, there is no authentication; "
            "put a proxy that authenticates in front of it, or leave out --host",
            settings.host,
        )
    return listener


def _announce(listener: socket.socket, *, as_json: bool) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(json.dumps({"event": "listening", "url": url}) if as_json else f"Listening on {url}", flush=True)


def _exit_cleanly_on_signals(server: uvicorn.Server) -> None:
    # uvicorn raises the signal again once it has shut down: these handlers make that, and the time before it, harmless.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))


def _port(text: str) -> int:
    number = _count(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port; give 0 to 65535")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _megabytes(text: str) -> int:
    number = int(text)
    if number < 16:
        raise argparse.ArgumentTypeError(f"{number} MiB are too few to read anything; give 16 or more")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400 seconds")
    return number
