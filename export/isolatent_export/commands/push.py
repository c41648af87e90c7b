"""Share a bundle: as one tar file, or as a repository on the Hugging Face hub (extra `hub`).

isolatent push bundles/digits digits.tar                 or digits.tar.gz
isolatent push bundles/digits OWNER/NAME --private       token: HF_TOKEN, or `hf auth login`
"""

from __future__ import annotations

import argparse
from pathlib import Path

from isolatent.cli import CommandError
from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.sharing.archive import SUFFIXES, pack
from isolatent_export.verify import load_verified


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", help="directory of the bundle")
    parser.add_argument("target", metavar="TARGET", help=f"a file *{', *'.join(SUFFIXES)}, or OWNER/NAME on the hub")
    parser.add_argument("--private", action="store_true", help="a repository that is made is private")


def run(args: argparse.Namespace) -> int:
    """Verify the bundle, then pack or upload it."""
    try:
        bundle = Bundle.open(args.bundle)
        load_verified(bundle)
        if args.target.endswith(SUFFIXES):
            pack(bundle, Path(args.target))
            print(f"{args.target}: {Path(args.target).stat().st_size / 1e6:.1f} MB")
            print(f"Next: isolatent pull {args.target} --out {bundle.manifest.name}")
            return 0
        from isolatent_export.sharing.hub import upload

        print(f"{args.target}: {upload(bundle, args.target, private=args.private)}")
    except ModuleNotFoundError as error:
        raise _without_hub(error) from None
    except BundleError as error:
        raise CommandError(str(error)) from None
    print(f"Next: isolatent pull {args.target} --out {bundle.manifest.name}")
    return 0


def _without_hub(error: ModuleNotFoundError) -> CommandError:
    return CommandError(f'repositories need the extra "hub" ({error.name} is missing): pip install "isolatent[hub]"')
