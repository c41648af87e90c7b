"""Embeddings of images or point clouds as one file: N.npy holds (N, d) float32, N.npz also the file names as `ids`.

isolatent embed 'images/*.png' --url http://127.0.0.1:8000 --out embeddings.npz
isolatent embed 'scans/*.ply' --model shapes --out embeddings.npz
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isolatent.cli._service import (
    add_model_argument,
    add_service_arguments,
    files,
    out_path,
    print_json,
    service,
    write_whole,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `isolatent embed`."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="a file, or a pattern in quotes")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write, FILE.npy or FILE.npz")
    parser.add_argument("--batch-size", type=_count, default=64, help="inputs per request (default: 64)")
    add_model_argument(parser)
    add_service_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file, rows in the order of the inputs, and say what is in it."""
    out = out_path(args.out, (".npy", ".npz"))
    paths = files(args.inputs)
    with service(args) as client:
        embedding = client.embed(paths, args.model, batch_size=args.batch_size)
    write_whole(out, _content(out, embedding, paths))
    count, size = embedding.shape
    if args.json:
        print_json({"out": str(out), "inputs": count, "size": size})
    else:
        print(f"{out}: {count} embeddings of {size} numbers")
    return 0


def _content(out: Path, embedding: NDArray[np.float32], paths: list[str]) -> bytes:
    stream = io.BytesIO()
    if out.suffix.lower() == ".npy":
        np.save(stream, embedding)
    else:
        np.savez(stream, embedding=embedding, ids=np.array(paths))
    return stream.getvalue()


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count
