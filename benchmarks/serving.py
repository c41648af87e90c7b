"""Throughput of the service beside its limit, ONNX Runtime alone, interleaved in one run on the same machine.

    python benchmarks/serving.py [BUNDLE] [--rounds 5]

Prints a table and writes benchmarks/results/serving.json with machine, versions and date. Without BUNDLE it measures
what `make demo` exported.
"""

from __future__ import annotations

import argparse
import io
import statistics
from collections.abc import Callable
from pathlib import Path

import httpx2
import numpy as np
from load import rate
from machine import write
from PIL import Image

from isolatent_export.bundle import Bundle
from isolatent_export.runtime import OnnxRuntime
from isolatent_train.service import service

BULK = 256


def main() -> None:
    """Measure each case once per round, report medians of images per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=Path("demo/bundles/digits-cr"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    args = parser.parse_args()

    bundle = Bundle.open(args.bundle)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BULK, *bundle.manifest.input.shape), np.uint8)
    runtime = OnnxRuntime(bundle)
    rates: dict[str, list[float]] = {}
    with service([args.bundle]) as url, httpx2.Client(base_url=url, timeout=60) as client:
        cases: dict[str, tuple[Callable[[], object], int, int]] = {
            f"ONNX Runtime alone, batches of {BULK} (the limit)": (lambda: runtime.encode(images), BULK, 1),
            f"service, npy bodies of {BULK}, 1 connection": (_poster(client, _npy(images), "x-npy"), BULK, 1),
            "ONNX Runtime alone, single images": (lambda: runtime.encode(images[:1]), 1, 1),
            "service, single PNG, 1 connection": (_poster(client, _png(images[0]), "octet-stream"), 1, 1),
            "service, single PNG, 16 connections": (_poster(client, _png(images[0]), "octet-stream"), 1, 16),
        }
        for _ in range(args.rounds):
            for name, (call, count, threads) in cases.items():
                rates.setdefault(name, []).append(rate(call, threads, args.seconds) * count)

    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    path = write(
        "serving",
        ("isolatent", "onnxruntime", "fastapi", "uvicorn", "numpy"),
        {
            "bundle": bundle.manifest.name,
            "seconds": args.seconds,
            "images_per_second": {name: {"median": medians[name], "rounds": rates[name]} for name in rates},
        },
    )
    for name, median in medians.items():
        print(f"{name:<55} {median:>10,.0f} images/s")
    print(f"The load generator shares its cores with the service. Written to {path}")


def _poster(client: httpx2.Client, body: bytes, kind: str) -> Callable[[], object]:
    headers = {"Content-Type": f"application/{kind}", "Accept": "application/x-safetensors"}
    return lambda: client.post("/v1/posteriors", content=body, headers=headers).raise_for_status()


def _npy(images: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, images)
    return stream.getvalue()


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    return stream.getvalue()


if __name__ == "__main__":
    main()
