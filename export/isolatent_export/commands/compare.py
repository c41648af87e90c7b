"""Compare the posteriors of two bundles: did exporting again, fine-tuning or half precision change anything?

isolatent compare bundles/digits bundles/digits-fp16                on the golden inputs of the first
isolatent compare bundles/old bundles/new scans/*.ply --json        on files

Exit code 0: the same within the tolerance of the less precise bundle; 1: not.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent.cli import CommandError
from isolatent.cli._service import files
from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.comparison import Comparison, compare, require_comparable
from isolatent_export.inputs import InputError, Limits, decode_item
from isolatent_export.verify import load_verified


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("first", metavar="A", help="directory of a bundle")
    parser.add_argument("second", metavar="B", help="directory of the bundle to compare it with")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="a file, or a pattern in quotes (A's golden inputs)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="where to compute (cpu)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run(args: argparse.Namespace) -> int:
    """Print the differences and the verdict, which is also the exit code."""
    try:
        first, second = Bundle.open(args.first), Bundle.open(args.second)
        require_comparable(first, second)
        one, other = (load_verified(bundle, device=args.device) for bundle in (first, second))
        found = compare(one, other, _inputs(first, args.inputs), (first.manifest.tolerance, second.manifest.tolerance))
    except BundleError as error:
        raise CommandError(str(error)) from None
    if args.json:
        print(json.dumps(asdict(found) | {"tolerance": found.tolerance.model_dump(), "same": found.same}, indent=2))
    else:
        _print(found)
    return 0 if found.same else 1


def _inputs(bundle: Bundle, patterns: list[str]) -> NDArray[Any]:
    if not patterns:
        return bundle.golden().input
    return np.stack([_decoded(Path(path), bundle) for path in files(patterns)])


def _decoded(path: Path, bundle: Bundle) -> NDArray[Any]:
    try:
        return decode_item(path.read_bytes(), bundle.manifest.input, Limits())
    except InputError as error:
        raise CommandError(f"{path}: {error}") from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}; name readable files") from None


def _print(found: Comparison) -> None:
    allowed = found.tolerance
    print(f"{found.inputs} inputs; largest absolute difference:")
    print(f"  mean          {found.mean:.1e}, allowed {allowed.mean:.0e}")
    print(f"  log-variance  {found.log_variance:.1e}, allowed {allowed.log_variance:.0e}")
    print(f"cosine of the means {found.cosine_mean:.6f} on average, {found.cosine_min:.6f} at worst")
    print(f"KL(A || B) {found.kl_mean:.2e} nats on average, {found.kl_max:.2e} at worst")
    print("the same within tolerance" if found.same else "NOT the same: outside tolerance")
