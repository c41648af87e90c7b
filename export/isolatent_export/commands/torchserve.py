"""Make a folder that TorchServe serves: a model archive per bundle, a configuration on 127.0.0.1, and start.sh.

isolatent torchserve bundles/digits --out torchserve/digits
torchserve/digits/start.sh

TorchServe gets no security fixes any more; prefer `isolatent serve` where you may choose. See docs/torchserve.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from isolatent.cli import CommandError
from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.torchserve.store import START, Serving, write_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    usual = Serving()
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE", help="directory of a bundle")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--port", type=_port, default=usual.port, help=f"of inference; the next four are used too ({usual.port})"
    )
    parser.add_argument(
        "--batch-size", type=_count, default=usual.batch_size, help=f"requests that run together ({usual.batch_size})"
    )
    parser.add_argument(
        "--batch-delay",
        type=_count,
        default=usual.batch_delay,
        help=f"milliseconds that a request waits for others to run with ({usual.batch_delay})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a folder of this kind that is already there")


def run(args: argparse.Namespace) -> int:
    """Check the bundles' hashes and write the folder."""
    serving = Serving(port=args.port, batch_size=args.batch_size, batch_delay=args.batch_delay)
    try:
        bundles = [Bundle.open(path) for path in args.bundles]
        out = write_store(bundles, args.out, serving, overwrite=args.overwrite)
    except BundleError as error:
        raise CommandError(str(error)) from None
    print(f"{out}: {', '.join(bundle.manifest.name for bundle in bundles)} for TorchServe")
    print(f"Next: {out / START}")
    return 0


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65_531:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 65531")
    return port
