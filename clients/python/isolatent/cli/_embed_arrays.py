"""`isolatent embed` into arrays, by a service: one request after the other, all rows in memory, nothing but numpy."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isolatent.cli._service import files, out_path, print_json, service, write_whole


def run(args: argparse.Namespace) -> int:
    """Write the file, rows in the order of the inputs, and say what is in it. The first bad input ends it."""
    out = out_path(args.out, (".npy", ".npz"))
    paths = files(args.inputs)
    with service(args) as client:
        embedding = client.embed(paths, args.model, batch_size=args.batch_size, concurrency=args.concurrency)
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
