"""What the model keeps of an image or point cloud: the decoder's output for the posterior mean, as a file.

isolatent reconstruct digit.png --out kept.png
isolatent reconstruct chair.off --model shapes --out kept.ply

The name of the file decides: .png an 8-bit picture, .ply a point cloud, .npy the numbers of either in float32.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np

from isolatent._client import Client
from isolatent._errors import NotAcceptableError
from isolatent.cli import CommandError
from isolatent.cli._service import (
    add_model_argument,
    add_service_arguments,
    out_path,
    print_json,
    service,
    write_whole,
)

_OTHERS = {".png": (".ply", "a point cloud"), ".ply": (".png", "a picture")}
"""By the suffix that a model cannot give: the one that it can, and what it reconstructs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `isolatent reconstruct`."""
    parser.add_argument("file", metavar="FILE", help="an image, point cloud or mesh file")
    parser.add_argument("--out", required=True, metavar="OUT", help="file to write: OUT.png, OUT.ply or OUT.npy")
    add_model_argument(parser)
    add_service_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file and say where."""
    out = out_path(args.out, (".png", ".ply", ".npy"))
    with service(args) as client:
        content = _content(client, args, out)
    write_whole(out, content)
    if args.json:
        print_json({"file": args.file, "out": str(out)})
    else:
        print(f"{out}: the reconstruction of {args.file}")
    return 0


def _content(client: Client, args: argparse.Namespace, out: Path) -> bytes:
    suffix = out.suffix.lower()
    if suffix == ".npy":
        stream = io.BytesIO()
        np.save(stream, client.reconstruct(args.file, args.model))
        return stream.getvalue()
    try:
        return client.reconstruct_file(args.file, "png" if suffix == ".png" else "ply", args.model)
    except NotAcceptableError:
        right, what = _OTHERS[suffix]
        raise CommandError(
            f"--out {args.out}: the model reconstructs {what}; the name must end in {right} or .npy"
        ) from None
