"""Turn a complete run into a verified bundle: ONNX, TorchScript, weights, golden samples, manifest and model card.

Every engine's outputs are compared with the training framework's; excess error fails the export.

    isolatent export runs/digits --out bundles/digits
    isolatent export runs/digits --precision fp16       half weights in the ONNX graphs: for GPUs, and smaller files
    isolatent export runs/digits --torchserve           also writes the folder torchserve/digits, for TorchServe
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, get_args

from isolatent.cli import CommandError
from isolatent_export.bundle import Bundle, BundleError, is_bundle
from isolatent_export.manifest import NAME_PATTERN, Precision
from isolatent_export.placing import require_free
from isolatent_export.torchserve.store import CONFIG, START, write_store
from isolatent_train.bundling import export_run
from isolatent_train.commands.evaluate import keep, load_fitting
from isolatent_train.data import DataError
from isolatent_train.evaluation import evaluate
from isolatent_train.run import RunError, Trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run_dir", metavar="RUN", help="directory of a complete run")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the bundle's directory (default: bundles/NAME)")
    parser.add_argument("--name", help="name it is served under (default: the run's)")
    parser.add_argument("--version", default="1", help="version it is served as (default: 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="fp32",
        help="type of the weights in the ONNX graphs (fp32); a CPU casts fp16 to float32 and may be slower with it",
    )
    parser.add_argument(
        "--torchserve", action="store_true", help="also write torchserve/NAME, a folder that TorchServe serves"
    )


def run(args: argparse.Namespace) -> int:
    """Export, evaluating first when that was not done yet."""
    _require_name("--name", args.name)
    _require_name("--version", args.version)
    try:
        trained = Trained.open(args.run_dir)
        name = args.name or trained.config.name
        out, store = args.out or Path("bundles") / name, Path("torchserve") / name
        # The writers ask this, too: after minutes of evaluation.
        require_free(out, is_bundle, overwrite=args.overwrite)
        if args.torchserve:
            require_free(
                store, lambda place: (place / CONFIG).is_file(), overwrite=args.overwrite, other="another --name"
            )
        splits = load_fitting(trained)
        metrics = trained.evaluation()
        if metrics is None:
            print("Not evaluated yet; evaluating for the model card ...", flush=True)
            metrics = evaluate(trained, splits)
            _keep(trained, metrics)
        bundle = export_run(
            trained,
            splits,
            metrics,
            out,
            name=name,
            version=args.version,
            overwrite=args.overwrite,
            precision=args.precision,
        )
        if args.torchserve:
            write_store([bundle], store, overwrite=args.overwrite)
    except (BundleError, DataError, RunError) as error:
        raise CommandError(str(error)) from None
    print(f"{bundle.path}: {parity_line(bundle)}")
    print(speed_line(bundle))
    print(f"Next: isolatent serve {bundle.path}")
    if args.torchserve:
        print(f"Or with TorchServe: {store / START}")
    return 0


def _require_name(option: str, value: str | None) -> None:
    if value is not None and not re.fullmatch(NAME_PATTERN, value):
        raise CommandError(
            f"{option} {value!r}: give at most 100 letters, digits, '.', '_' and '-', a letter or digit first"
        )


def _keep(trained: Trained, metrics: dict[str, Any]) -> None:
    """Keep the metrics for the next time; where that is not possible, the bundle holds them all the same."""
    try:
        keep(trained, metrics)
    except RunError as error:
        print(f"Note: {error}", flush=True)


def parity_line(bundle: Bundle) -> str:
    """One line on how closely the bundle's engines agree with torch."""
    worst = max(max(row.mean, row.log_variance, row.reconstruction) for row in bundle.manifest.parity)
    engines = ", ".join(dict.fromkeys(row.engine for row in bundle.manifest.parity))
    return f"{engines} within {worst:.1e} of torch at batches 1, 2 and 7"


def speed_line(bundle: Bundle) -> str:
    """One line on how long batches take on this machine's CPU."""
    speed = bundle.manifest.speed
    assert speed is not None  # measured just now
    rows = ", ".join(f"{row.encode_ms:.3g} ms to encode {row.batch}" for row in speed.rows)
    casts = " (fp16 on a CPU: ONNX Runtime casts to float32; half precision pays on GPUs)"
    note = casts if bundle.manifest.precision == "fp16" else ""
    return f"{speed.engine} on {speed.cores} cores: {rows}{note}"
