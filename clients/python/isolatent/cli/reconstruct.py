"""What the model keeps of an image: the decoder's output for the posterior mean, as a PNG file.

isolatent reconstruct digit.png --out kept.png
"""

from __future__ import annotations

import argparse

from isolatent.cli._service import (
    add_model_argument,
    add_service_arguments,
    out_path,
    print_json,
    service,
    write_whole,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `isolatent reconstruct`."""
    parser.add_argument("file", metavar="FILE", help="an image file")
    parser.add_argument("--out", required=True, metavar="PNG", help="file to write, an 8-bit PNG of the model's size")
    add_model_argument(parser)
    add_service_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the picture and say where."""
    out = out_path(args.out, (".png",))
    with service(args) as client:
        content = client.reconstruct_png(args.file, args.model)
    write_whole(out, content)
    if args.json:
        print_json({"file": args.file, "out": str(out)})
    else:
        print(f"{out}: the reconstruction of {args.file}")
    return 0
