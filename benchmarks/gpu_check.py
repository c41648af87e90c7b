"""A bundle on this machine's NVIDIA GPU: golden parity in fp32 and fp16, latency and throughput per batch size.

    make gpu-check
    python benchmarks/gpu_check.py --run runs/digits

ONNX Runtime is measured without and with bound buffers and with CUDA graphs, beside torch, torch.compile and
TorchScript on the same card. Arrays start and end in the memory of the processor, as a service has them. Needs
onnxruntime-gpu, and for the comparison a torch with CUDA. Where there is no GPU it measures nothing and exits with 1;
`--device cpu` runs the same steps on a processor, to see that they work. Exits with 1 also when an output is outside
tolerance.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import engines
import machine
import numpy as np
import torch
from numpy.typing import NDArray

from isolatent_export import parity
from isolatent_export.bundle import TORCHSCRIPT, Bundle, BundleError
from isolatent_export.manifest import Precision
from isolatent_export.runtime import BUCKETS, CudaOptions, OnnxRuntime
from isolatent_train.bundling import export_run
from isolatent_train.data import load_data
from isolatent_train.exported import ExportedEncoder
from isolatent_train.run import Trained

Array = NDArray[Any]
Encode = Callable[[Array], object]


def main() -> int:
    """Check, measure, print, write benchmarks/results/gpu_check-DEVICE.json."""
    args = _arguments()
    name = device_name(args.device)
    if name is None:
        print("no NVIDIA GPU: nothing measured", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        work = Path(folder)
        runs = args.run or [engines.trained(name, changes, work) for name, changes in engines.models().items()]
        try:
            models = [_model(Trained.open(run), work / str(index), args) for index, run in enumerate(runs)]
        except BundleError as error:
            print(f"gpu_check: {error}", file=sys.stderr)
            return 1
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    packages = ("torch", "onnxruntime", "onnxruntime-gpu")
    measured = {"device": name, "torch_cuda": torch.version.cuda, "models": models}
    path = machine.write(f"gpu_check-{slug}", packages, measured, folder=args.results)
    print(f"{path} written")
    problems = [problem for model in models for problem in model["problems"]]
    for problem in problems:
        print(f"gpu_check: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", type=Path, help="a complete run, instead of models trained for this")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to try the steps (cuda)")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BUCKETS), help="batch sizes (those of serving)")
    parser.add_argument("--seconds", type=float, default=1.0, help="that each is measured (1)")
    parser.add_argument("--results", type=Path, default=machine.RESULTS, help="folder of the results")
    return parser.parse_args()


def device_name(device: str) -> str | None:
    """The GPU's name as its driver says, or "cpu"; None when there is no GPU."""
    if device == "cpu":
        return "cpu"
    if not shutil.which("nvidia-smi"):
        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    names = said.stdout.strip().splitlines() if said.returncode == 0 else []
    return names[0] if names else None


def _model(trained: Trained, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Parity and speed of both precisions of one model, and of its competitors. Raises BundleError without CUDA."""
    splits = load_data(trained.config.data)
    found: dict[str, Any] = {"name": trained.config.name, "parity": [], "problems": [], "speed": [], "left_out": {}}
    for precision in get_args(Precision):
        bundle = export_run(trained, splits, {}, work / precision, name=trained.config.name, precision=precision)
        for mode, runtime in _runtimes(bundle, args):
            rows = parity.measure(runtime, bundle.golden(), f"{runtime.provider}, {precision}, {mode}")
            found["parity"] += [row.model_dump() for row in rows]
            found["problems"] += parity.excess(rows, bundle.manifest.tolerance)
            found["speed"] += _timed(f"ONNX Runtime, {precision}, {mode}", runtime.encode, bundle, args)
        if precision == "fp32":
            for name, make in _competitors(trained, bundle, args.device).items():
                try:
                    found["speed"] += _timed(name, make(), bundle, args)
                except Exception as error:  # a compiler may be missing, or torch without CUDA: the rest goes on
                    found["left_out"][name] = (str(error).splitlines() or [type(error).__name__])[0]
                    print(f"{name} left out: {found['left_out'][name]}", file=sys.stderr)
    return found


def _runtimes(bundle: Bundle, args: argparse.Namespace) -> Iterator[tuple[str, OnnxRuntime]]:
    """ONNX Runtime in the ways that a service may run it: (name, runtime)."""
    sizes = tuple(sorted({*args.batches, *BUCKETS}))
    yield "arrays as they come", OnnxRuntime(bundle, device=args.device, buckets=())
    yield "bound buffers", OnnxRuntime(bundle, device=args.device, buckets=sizes)
    if args.device == "cuda":
        yield "CUDA graphs", OnnxRuntime(bundle, device="cuda", buckets=sizes, cuda=CudaOptions(graphs=True))


def _competitors(trained: Trained, bundle: Bundle, device: str) -> dict[str, Callable[[], Encode]]:
    """PyTorch's own ways of running the encoder."""

    def eager() -> Encode:
        return _on(device, ExportedEncoder(trained.model).eval().to(device))

    def compiled() -> Encode:
        mode = "reduce-overhead" if device == "cuda" else "default"  # on a GPU that records CUDA graphs
        return _on(device, torch.compile(ExportedEncoder(trained.model).eval().to(device), mode=mode, dynamic=False))

    def script() -> Encode:
        return _on(device, torch.jit.load(bundle.file(TORCHSCRIPT), map_location=device).encode)

    return {"torch": eager, "torch.compile": compiled, "TorchScript": script}


def _on(device: str, encode: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Encode:
    @torch.inference_mode()
    def run(inputs: Array) -> tuple[Array, Array]:
        mean, log_variance = encode(torch.from_numpy(inputs).to(device))
        return mean.cpu().numpy(), log_variance.cpu().numpy()

    return run


def _timed(name: str, encode: Encode, bundle: Bundle, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Median and 99th percentile of a batch's milliseconds, and items per second, for each batch size."""
    rows = []
    for batch in args.batches:
        inputs = np.resize(bundle.golden().input, (batch, *bundle.manifest.input.shape))
        for _ in range(3):  # what is allocated, recorded or compiled at first
            encode(inputs)
        times: list[float] = []
        while len(times) < 5 or sum(times) < args.seconds:
            started = time.perf_counter()
            encode(inputs)
            times.append(time.perf_counter() - started)
        median = statistics.median(times)
        slow = float(np.percentile(times, 99))
        rows.append({"engine": name, "batch": batch, "ms": 1e3 * median, "ms_p99": 1e3 * slow, "items": batch / median})
        print(f"{name:<45} batch {batch:>3}: {1e3 * median:8.3f} ms, {batch / median:10.0f} items/s", flush=True)
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
