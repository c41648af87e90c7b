"""Posteriors or embeddings of any number of images or point clouds, computed here with a bundle or by a service.

isolatent embed images/ --model runs/digits/bundle --out embeddings.parquet
isolatent embed 'scans/*.ply' more.zip --model bundle --out results/ --outputs reconstruction_error,consistency
isolatent embed s3://bucket/images --model bundle --out results/ --engine ray --address head:6379
isolatent embed images/ --url http://127.0.0.1:8000 --out results/
isolatent embed 'images/*.png' --url http://127.0.0.1:8000 --out embeddings.npz

INPUT is a file, folder, pattern in quotes, archive (zip, tar), Parquet file, or a URI of one. --out names what is made:
a folder, whose parts readers of Parquet datasets take as they are; FILE.parquet or FILE.jsonl, one file; FILE.npz, the
arrays by name; FILE.npy, the embeddings alone, with the ids in FILE.ids.jsonl. A row has the id of its input, which is
its path below INPUT, or below the folder that all INPUTs share.

What is interrupted goes on where it was when the same command is given again. Inputs that cannot be read do not end it:
they are listed with the reasons in _errors.jsonl of the folder, or FILE.errors.jsonl. FILE.npy and FILE.npz from a
service are the exception: they need no further packages, are made in memory, and end at the first bad input.

Exit codes: 0 all inputs have a row, 1 some failed, 2 it could not be done, 130 interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from isolatent.cli import CommandError, _embed_arrays
from isolatent.cli._service import add_service_arguments
from isolatent.cli.jobs import add_outputs_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `isolatent embed`."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, folder, pattern, archive, Parquet file, URI")
    parser.add_argument("--out", required=True, metavar="OUT", help="DIR, or FILE.parquet, .jsonl, .npz or .npy")
    parser.add_argument("--model", metavar="BUNDLE", help="folder of a bundle; of a service, the name of a model")
    add_outputs_argument(parser)
    parser.add_argument("--samples", type=_count, metavar="N", help="transformed copies per input, for consistency")
    parser.add_argument("--column", metavar="NAME", help="of Parquet inputs: what holds the files or their paths")
    parser.add_argument("--format", choices=("parquet", "jsonl", "npy"), help="of the parts in DIR (parquet)")
    parser.add_argument("--shard-items", type=_count, metavar="N", help="inputs per part (1024, fewer for small jobs)")
    parser.add_argument("--batch-size", type=_count, default=64, metavar="N", help="inputs encoded together (64)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and try the first inputs")
    parser.add_argument("--fresh", action="store_true", help="remove what an earlier run has left, and begin again")
    parser.add_argument("--keep-parts", action="store_true", help="keep FILE.job with the parts beside FILE")
    here = parser.add_argument_group("with a bundle")
    here.add_argument("--engine", choices=("local", "ray"), default="local", help="processes here, or Ray (local)")
    here.add_argument("--processes", type=_count, metavar="N", help="processes or Ray actors (one per core)")
    here.add_argument("--address", metavar="HOST:PORT", help="HOST:PORT of a Ray cluster (RAY_ADDRESS, else one here)")
    here.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="to compute on (auto)")
    add_service_arguments(parser)
    parser.add_argument("--concurrency", type=_count, default=4, metavar="N", help="requests under way at once (4)")


def run(args: argparse.Namespace) -> int:
    """Do it, and say what there is. Exit code 1 when some inputs failed, 2 when it could not be done."""
    try:
        if is_local(args):
            _require_only_local(args)
        elif args.engine == "ray":
            raise CommandError("--engine ray computes here; give it a bundle: --model BUNDLE, without --url")
        elif Path(args.out).suffix.lower() in (".npy", ".npz"):
            _require_plain(args)
            return _embed_arrays.run(args)
        return _run_job(args)
    except CommandError as error:
        raise CommandError(str(error), code=2) from None


def is_local(args: argparse.Namespace) -> bool:
    """Whether --model is a bundle here rather than the name of a served model."""
    if args.url or not args.model:
        return False
    if Path(args.model).is_dir():
        return True
    if "/" in args.model:
        raise CommandError(f"--model {args.model}: no such folder; name a bundle, or a served model with --url")
    return False


def _run_job(args: argparse.Namespace) -> int:
    try:
        from isolatent.cli import _embed_jobs  # what it imports comes with the extras

        return _embed_jobs.run(args)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith("isolatent"):
            raise
        extra = "ray" if missing.split(".")[0] == "ray" else "jobs"
        what = "--engine ray" if extra == "ray" else "this"
        raise CommandError(
            f'{what} needs {missing}, which is not installed: pip install "isolatent[{extra}]"'
        ) from None


def _require_only_local(args: argparse.Namespace) -> None:
    if args.address and args.engine != "ray":
        raise CommandError("--address is that of a Ray cluster; add --engine ray")


def _require_plain(args: argparse.Namespace) -> None:
    """Refuse what arrays made in memory do not offer."""
    for name in ("outputs", "samples", "column", "format", "dry_run", "fresh", "keep_parts"):
        if getattr(args, name):
            option = f"--{name.replace('_', '-')}"
            raise CommandError(f"{option} is not for {args.out} from a service; choose an --out DIR or FILE.parquet")


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count
