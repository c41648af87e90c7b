"""Check a bundle: every file's hash, and the golden outputs on ONNX Runtime, and where asked for on PyTorch.

isolatent verify bundles/digits                     safe with bundles from strangers
isolatent verify bundles/digits --all-engines       also runs model.ts, encoder.pt2 and decoder.pt2: code of its maker
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from isolatent.cli import CommandError
from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.manifest import Tolerance
from isolatent_export.verify import Verification, verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", help="directory of the bundle")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="where to recompute (cpu)")
    parser.add_argument("--torchscript", action="store_true", help="also run model.ts; only if you trust its maker")
    parser.add_argument("--pt2", action="store_true", help="also run the *.pt2 files; only if you trust their maker")
    parser.add_argument("--all-engines", action="store_true", help="both")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run(args: argparse.Namespace) -> int:
    """Print what was found, file by file and engine by engine; exit code 1 when anything is wrong."""
    try:
        bundle = Bundle.open(args.bundle)
        torchscript, pt2 = args.torchscript or args.all_engines, args.pt2 or args.all_engines
        found = verify(bundle, device=args.device, torchscript=torchscript, pt2=pt2)
    except BundleError as error:
        raise CommandError(str(error)) from None
    if args.json:
        facts = {"files": [asdict(check) for check in found.files], "problems": found.problems}
        print(json.dumps(facts | {"parity": [row.model_dump() for row in found.parity]}, indent=2))
    else:
        _print(found, bundle.manifest.tolerance)
    if found.problems:
        raise CommandError(f"{args.bundle} is not to be trusted: {found.problems[0]}; copy or export it again")
    return 0


def _print(found: Verification, tolerance: Tolerance) -> None:
    for check in found.files:
        print(f"{check.problem or 'ok':<4} {check.name}")
    for problem in found.problems if not any(check.problem for check in found.files) else ():
        print(f"wrong: {problem}")
    for row in found.parity:
        measured = f"mean {row.mean:.1e}, log-variance {row.log_variance:.1e}, reconstruction {row.reconstruction:.1e}"
        print(f"{row.engine}, batch {row.batch}: {measured}")
    if found.parity:
        print(f"allowed: mean {tolerance.mean:.0e}, log-variance {tolerance.log_variance:.0e}")
