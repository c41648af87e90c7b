"""Get a bundle from a tar file, a directory or the Hugging Face hub (extra `hub`), and verify it before it appears.

isolatent pull digits.tar --out bundles/digits
isolatent pull OWNER/NAME --out bundles/digits --revision v2

Hashes and golden outputs are checked on ONNX Runtime; code in the bundle (model.ts, *.pt2) is not run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from isolatent.cli import CommandError
from isolatent_export.bundle import BundleError
from isolatent_export.sharing.arrival import arrive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SOURCE", help="a tar file, a directory, or OWNER/NAME on the hub")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the bundle's directory, made new")
    parser.add_argument("--revision", help="branch, tag or commit of the repository (its main branch)")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")


def run(args: argparse.Namespace) -> int:
    """Fetch, verify, move into place."""
    try:
        bundle = arrive(args.source, args.out, revision=args.revision, overwrite=args.overwrite)
    except ModuleNotFoundError as error:
        raise CommandError(
            f'repositories need the extra "hub" ({error.name} is missing): pip install "isolatent[hub]"'
        ) from None
    except BundleError as error:
        raise CommandError(str(error)) from None
    facts = bundle.manifest
    print(
        f"{bundle.path}: {facts.name}, version {facts.version}, {len(facts.files)} files intact, golden outputs match"
    )
    print(f"Next: isolatent serve {bundle.path}")
    return 0
