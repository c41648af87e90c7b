"""What the cores can do without a server: the model alone, and the model with the decoding of PNG files.

    python benchmarks/limits.py BUNDLE [--cores 2] [--seconds 3]

Prints images per second as JSON. Both ways to use the cores are measured, one model on all or one on each.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from pictures import pictures, png
from PIL import Image
from processes import cores

from isolatent_export.bundle import Bundle
from isolatent_export.runtime import OnnxRuntime

BATCH = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    count = len(cores(args.cores)[0])
    ways = {
        f"model alone, {count} threads": (1, count, False),
        f"model alone, {count} processes": (count, 1, False),
        f"model and PNG decoding, {count} processes": (count, 1, True),
    }
    rates = {name: _rate(args.bundle, *way, args.seconds) for name, way in ways.items()}
    print(json.dumps(rates))


def _rate(bundle: Path, processes: int, threads: int, decoding: bool, seconds: float) -> float:
    """Images per second of so many processes at once."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    arguments = (bundle, threads, decoding, seconds, barrier, results)
    running = [context.Process(target=_work, args=arguments) for _ in range(processes)]
    for each in running:
        each.start()
    rate = sum(results.get() for _ in running)
    for each in running:
        each.join()
    return rate


def _work(
    bundle: Path, threads: int, decoding: bool, seconds: float, barrier: Barrier, results: multiprocessing.SimpleQueue
) -> None:
    call = _call(Bundle.open(bundle), threads, decoding)
    call()
    barrier.wait()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        call()
        done += BATCH
    results.put(done / (time.perf_counter() - start))


def _call(bundle: Bundle, threads: int, decoding: bool) -> Callable[[], object]:
    runtime = OnnxRuntime(bundle, threads=threads)
    images = pictures(bundle.manifest.input.shape, BATCH)
    if not decoding:
        return lambda: runtime.encode(images)
    files = [png(image) for image in images]
    return lambda: runtime.encode(
        np.stack([_pixels(file, image.shape) for file, image in zip(files, images, strict=True)])
    )


def _pixels(file: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file))).reshape(shape)


if __name__ == "__main__":
    main()
