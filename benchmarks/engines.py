"""One set of real inputs through every engine that runs a bundle: the largest differences from torch, in one table.

    python benchmarks/engines.py                      200 images and 100 clouds; small models trained for it, minutes
    python benchmarks/engines.py --run runs/digits --run runs/scans        your own runs instead

Data: MNIST and ModelNet10 in the folder that ISOLATENT_DATA names, the built-in digits and shapes without it.
TorchServe takes part where it is installed and there is Java. Exits with 1 when a difference is outside tolerance.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from numpy.typing import NDArray
from processes import Process, cores, free_ports

from isolatent import Client, IsolatentError
from isolatent_export.bundle import DECODER_PROGRAM, ENCODER_PROGRAM, TORCHSCRIPT, Bundle
from isolatent_export.manifest import Precision
from isolatent_export.runtime import OnnxRuntime
from isolatent_export.to_program import ProgramRuntime
from isolatent_export.to_torchscript import TorchScriptRuntime
from isolatent_export.torchserve.store import START, Serving, write_store
from isolatent_train.bundling import export_run
from isolatent_train.config import Config
from isolatent_train.data import Splits, load_data
from isolatent_train.loop import train
from isolatent_train.run import Trained

Array = NDArray[Any]
Posteriors = tuple[Array, Array]
"""Means and log-variances, (N, d) each."""

COUNTS = {"image": 200, "point_cloud": 100}
BATCH = 32
_SHORT = ["training.epochs=1", "training.tracker=none"]
_PATIENCE = 120.0
"""Seconds that a server has to start."""


def main() -> int:
    """Measure, print the table, write benchmarks/results/engines.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", type=Path, help="a complete run, instead of models trained for this")
    parser.add_argument("--count", type=int, help="inputs of each (200 images, 100 clouds)")
    parser.add_argument("--no-fp16", action="store_true", help="leave out fp16 bundles")
    parser.add_argument("--no-torchserve", action="store_true", help="leave out TorchServe")
    parser.add_argument("--results", type=Path, default=machine.RESULTS, help="folder of the results")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="engines-") as folder:
        work = Path(folder)
        runs = args.run or [trained(name, changes, work) for name, changes in models().items()]
        for index, run in enumerate(runs):
            rows += _through_all(Trained.open(run), work / str(index), args)
    path = machine.write("engines", ("torch", "onnxruntime", "torchserve"), {"rows": rows}, folder=args.results)
    _print(rows)
    print(f"{path} written")
    return 0 if all(row["within"] for row in rows) else 1


def models() -> dict[str, list[str]]:
    """Name -> recipe and settings: a few thousand real inputs, seen once."""
    root = os.environ.get("ISOLATENT_DATA")
    if root and (Path(root) / "mnist").is_dir() and (Path(root) / "modelnet10").is_dir():
        clouds = [f"data.spec=modelnet:{root}/modelnet10", "data.points=256", "data.limit=400"]
        return {
            "mnist": ["digits", f"data.spec=idx:{root}/mnist", "data.size=28", "data.limit=2000"],
            "modelnet10": ["shapes", *clouds],
        }
    return {"digits": ["digits"], "shapes": ["shapes", "data.limit=600"]}


def trained(name: str, changes: list[str], work: Path) -> Path:
    """Train a model of `models` for one epoch; returns its run."""
    print(f"training on {name} ...", file=sys.stderr, flush=True)
    recipe, *settings = changes
    config = Config.load(recipe, [f"name={name}", *settings, *_SHORT])
    return train(config, load_data(config.data), work / f"{name}-run", resume=False)


def _through_all(trained: Trained, work: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per engine."""
    splits = load_data(trained.config.data)
    bundle = export_run(trained, splits, {}, work / "fp32" / trained.config.name)
    inputs = _inputs(splits, args.count or COUNTS[trained.spec.modality])
    expected = _torch(trained, inputs)
    rows = [_row(bundle, name, run(inputs), expected) for name, run in _in_process(bundle).items()]
    with _service(bundle, work, inputs[0]) as client:
        rows.append(_row(bundle, "isolatent serve", _asked(client, inputs), expected))
    if not args.no_torchserve:
        if shutil.which("java") and find_spec("ts"):
            with _torchserve(bundle, work, inputs[0]) as client:
                rows.append(_row(bundle, "TorchServe", _asked(client, inputs), expected))
        else:
            print("TorchServe left out: it or Java is not installed", file=sys.stderr)
    if not args.no_fp16:
        precision: Precision = "fp16"
        half = export_run(trained, splits, {}, work / "fp16" / trained.config.name, precision=precision)
        rows.append(_row(half, "ONNX Runtime, fp16 bundle", _batched(OnnxRuntime(half).encode)(inputs), expected))
    return rows


def _inputs(splits: Splits, count: int) -> Array:
    """Inputs that were not trained on."""
    return torch.cat([splits.test.inputs, splits.validation.inputs])[:count].numpy()


# ---- engines ----


@torch.inference_mode()
def _torch(trained: Trained, inputs: Array) -> Posteriors:
    """The framework that trained the model, in one batch."""
    posterior = trained.model.encode(trained.model.codec.to_network(torch.from_numpy(inputs)))
    return posterior.mean.numpy(), posterior.log_variance.numpy()


def _in_process(bundle: Bundle) -> dict[str, Callable[[Array], Posteriors]]:
    programs = ProgramRuntime(bundle.file(ENCODER_PROGRAM), bundle.file(DECODER_PROGRAM))
    return {
        "TorchScript": _batched(TorchScriptRuntime(bundle.file(TORCHSCRIPT)).encode),
        "torch.export (.pt2)": _batched(programs.encode),
        "ONNX Runtime": _batched(OnnxRuntime(bundle).encode),
    }


def _batched(encode: Callable[[Array], Posteriors]) -> Callable[[Array], Posteriors]:
    def run(inputs: Array) -> Posteriors:
        parts = [encode(inputs[start : start + BATCH]) for start in range(0, len(inputs), BATCH)]
        mean, log_variance = (np.concatenate(part) for part in zip(*parts, strict=True))
        return mean, log_variance

    return run


def _asked(client: Client, inputs: Array) -> Posteriors:
    """What a server answers: variances, whose logarithms are compared like all others."""
    posteriors = client.posteriors(list(inputs), batch_size=BATCH)
    variances = np.stack([posterior.variance for posterior in posteriors]).astype(np.float64)
    return np.stack([posterior.mean for posterior in posteriors]), np.log(variances)


@contextmanager
def _service(bundle: Bundle, work: Path, item: Array) -> Iterator[Client]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "isolatent", "serve", bundle.path, "--port", str(port), "--device", "cpu"]
    process = Process(command, {}, work, work / "serve.log", cores(0)[1])
    try:
        with Client(f"http://127.0.0.1:{port}", max_retries=0, timeout=_PATIENCE) as client:
            _wait_for(client, process, item)
            yield client
    finally:
        process.stop()


@contextmanager
def _torchserve(bundle: Bundle, work: Path, item: Array) -> Iterator[Client]:
    port = _five_ports()
    store = write_store([bundle], work / "torchserve", Serving(port=port))
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    process = Process([store / START], here, store, work / "torchserve.log", cores(0)[1])
    try:
        address = f"http://127.0.0.1:{port}"
        with Client(address, max_retries=0, timeout=_PATIENCE, backend="torchserve") as client:
            _wait_for(client, process, item)
            yield client
    finally:
        process.stop(patience=30)


def _five_ports() -> int:
    """The first of five ports in a row that are free: TorchServe takes them all."""
    while True:
        first = free_ports(1)[0]
        with suppress(OSError, OverflowError), ExitStack() as held:
            for port in range(first, first + 5):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def _wait_for(client: Client, process: Process, item: Array) -> None:
    """Until the model answers for `item`. Raises SystemExit when the process ends or takes too long."""
    until = time.monotonic() + _PATIENCE
    while True:
        with suppress(IsolatentError):
            client.posterior(item)
            return
        if not process.alive or time.monotonic() > until:
            raise SystemExit(f"no answer; the end of {process.log}:\n{process.log.read_text()[-2000:]}")
        time.sleep(0.2)


# ---- the table ----


def _row(bundle: Bundle, engine: str, got: Posteriors, expected: Posteriors) -> dict[str, Any]:
    mean, log_variance = (float(np.abs(a.astype(np.float64) - b).max()) for a, b in zip(got, expected, strict=True))
    allowed = bundle.manifest.tolerance
    return {
        "model": bundle.manifest.name,
        "inputs": len(expected[0]),
        "engine": engine,
        "mean": mean,
        "log_variance": log_variance,
        "allowed": allowed.mean,
        "within": mean <= allowed.mean and log_variance <= allowed.log_variance,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    print("| model | inputs | engine | mean | log-variance | allowed | |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['model']} | {row['inputs']} | {row['engine']} | {row['mean']:.1e} | {row['log_variance']:.1e} "
            f"| {row['allowed']:.0e} | {'within' if row['within'] else 'OUTSIDE'} |"
        )


if __name__ == "__main__":
    raise SystemExit(main())
