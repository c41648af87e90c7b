"""Batch jobs from end to end: images and clouds per second, memory, and what they cost whoever uses the service.

    python benchmarks/jobs.py                              everything (about an hour on two cores)
    python benchmarks/jobs.py images clouds [--only local ray] [--rounds 3] [--items 50000]
    python benchmarks/jobs.py memory [--memory-items 10000 200000]
    python benchmarks/jobs.py beside [--seconds 30]
    python benchmarks/jobs.py --quick                      does everything work? Says nothing about speed

A rate is the number of files by the time from the start of a command to its end, on the same cores for all, files in
the page cache, contestants in turn. The limit is decoding and ONNX Runtime in a process per core without a job.
Inputs are MNIST as PNG and ModelNet10 as PLY files from the folder that ISOLATENT_DATA names, made-up ones without it;
they are written once, to benchmarks/runs/jobs/. Writes benchmarks/results/jobs-PART.json and docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jobs_inputs
import numpy as np
import page
from contestants import POSTERIORS, SAFETENSORS
from jobs_inputs import cloud_bundle
from machine import RESULTS, write
from models import FOLDER, NAMES, bundle
from open_loop import Offered, arrivals, request
from pictures import pictures, png
from processes import Process, cores, free_ports

from isolatent_export.bundle import Bundle

PARTS = ("images", "clouds", "memory", "beside")
CONTESTANTS = ("limit", "local", "ray", "naive-ray", "post")
PACKAGES = ("isolatent", "onnxruntime", "numpy", "pillow", "pyarrow", "ray")
QUICK = FOLDER.parent / "quick"
WATCH_SECONDS = 0.2
PATIENCE = 3600.0

Command = list[str | Path]


def main() -> None:
    """Measure part by part; what is done is written before the next one begins."""
    args = _arguments()
    print(f"on cores {sorted(cores(args.cores)[0])}", flush=True)
    measure: dict[str, Callable[[], dict[str, Any]]] = {
        "images": lambda: _rates(args, bundle(args.model), jobs_inputs.images(args.items)),
        "clouds": lambda: _rates(args, cloud_bundle(args.cloud_model), jobs_inputs.clouds(args.items)),
        "memory": lambda: _memory(args, bundle(args.model)),
        "beside": lambda: _beside(args, bundle(args.model)),
    }
    for part in args.parts or PARTS:
        facts = {"cores": args.cores, "data": jobs_inputs.source(part)} | measure[part]()
        print(f"Written to {write(f'jobs-{part}', PACKAGES, facts, folder=args.out)}", flush=True)
    print(f"Written to {page.write(args.out, args.page)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--model", default="28x28x1", help=NAMES)
    parser.add_argument("--cloud-model", type=Path, help="folder of a bundle (default: one trained for this)")
    parser.add_argument("--items", type=int, default=50_000, help="files; clouds: as many as there are, at most")
    parser.add_argument(
        "--memory-items", type=int, nargs="+", default=[10_000, 200_000], help="files; beside: the most"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="beside: length of each measurement")
    parser.add_argument("--load", type=float, default=0.2, help="beside: share of the capacity that is offered")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--page", type=Path, default=page.PAGE)
    parser.add_argument("--quick", action="store_true", help="few files, written to benchmarks/runs/quick/")
    args = parser.parse_args()
    if args.quick:
        args.items, args.memory_items, args.rounds, args.seconds = 500, [500, 1000], 1, 2.0
        args.out, args.page = QUICK, QUICK / "benchmarks.md"
    return args


# ---- images and clouds per second ----


def _rates(args: argparse.Namespace, model: Bundle, folder: Path) -> dict[str, Any]:
    """All contestants in turn, several rounds; who is first changes."""
    count = _read_all(folder)
    rounds: dict[str, list[float]] = {name: [] for name in args.only}
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        for number in range(args.rounds):
            turn = number % len(args.only)
            for name in [*args.only[turn:], *args.only[:turn]]:
                seconds = _seconds(args, name, model, folder, Path(work) / f"{number}-{name}")
                rounds[name].append(count / seconds)
                print(f"{folder.name} round {number + 1} {name:9} {count / seconds:8.0f}/s", flush=True)
    return {
        "items": count,
        "model": model.manifest.name,
        "rounds": args.rounds,
        "rates": {name: {"median": statistics.median(rates), "rounds": rates} for name, rates in rounds.items()},
    }


def _seconds(args: argparse.Namespace, name: str, model: Bundle, folder: Path, out: Path) -> float:
    """How long one contestant takes for all files; a service for `post` is started before."""
    script, many = Path(__file__).with_name("jobs_contestants.py"), str(args.cores)
    commands: dict[str, Command] = {
        "limit": [sys.executable, script, "limit", model.path, folder, out, "--cores", many],
        "local": _embed(model, folder, out, "--processes", many),
        "ray": _embed(model, folder, out, "--processes", many, "--engine", "ray"),
        "naive-ray": [sys.executable, script, "naive-ray", model.path, folder, out, "--cores", many],
    }
    with contextlib.ExitStack() as stack:
        if name == "post":
            _, url = stack.enter_context(_service(args, model, out.with_suffix(".log")))
            commands["post"] = [sys.executable, script, "post", url, folder, out]
        began = time.monotonic()
        _run(commands[name], args.cores)
        seconds = time.monotonic() - began
    shutil.rmtree(out)
    return seconds


def _embed(model: Bundle, folder: Path, out: Path, *options: str) -> Command:
    command: Command = [sys.executable, "-m", "isolatent", "embed", folder, "--model", model.path]
    return [*command, "--out", f"{out}/", "--device", "cpu", *options]


def _run(command: Command, count: int) -> None:
    """Run a command on so many cores. Stops the benchmark when it fails."""
    on = cores(count)[0]
    words = [str(part) for part in command]
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, on))
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr[-2000:]}")


def _read_all(folder: Path) -> int:
    """Bring all files into the page cache; returns how many there are."""
    count = 0
    for entry in os.scandir(folder):
        Path(entry.path).read_bytes()
        count += 1
    return count


# ---- memory ----


def _memory(args: argparse.Namespace, model: Bundle) -> dict[str, Any]:
    """Peak memory of a local job with all its processes, by the number of files."""
    found = []
    for count in args.memory_items:
        folder = jobs_inputs.images(count)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            command = _embed(model, folder, Path(work) / "out", "--processes", str(args.cores))
            process = Process(command, {}, Path(work), Path(work) / "log", cores(args.cores)[0])
            began, peak = time.monotonic(), 0.0
            try:
                while process.alive and time.monotonic() - began < PATIENCE:
                    peak = max(peak, process.memory())
                    time.sleep(WATCH_SECONDS)
            finally:
                process.stop()
            listing = json.loads((Path(work) / "out" / "_listing.json").read_text())  # it is done
        assert listing["counts"]["succeeded"] == count
        print(f"{count} files: {peak:.0f} MB at most", flush=True)
        found.append({"items": count, "peak_mb": round(peak, 1), "seconds": round(time.monotonic() - began, 1)})
    return {"model": model.manifest.name, "processes": args.cores, "jobs": found}


# ---- beside interactive traffic ----


def _beside(args: argparse.Namespace, model: Bundle) -> dict[str, Any]:
    """Latency of single pictures that are offered open loop: the service idle otherwise, then with a job running."""
    folder = jobs_inputs.images(max(args.memory_items))
    files = [png(image) for image in pictures(model.manifest.input.shape, 16)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        jobs = ["--jobs", str(Path(work) / "jobs"), "--jobs-input", str(folder)]
        with _service(args, model, Path(work) / "log", *jobs) as (process, url):
            rate = args.load * _capacity(url, files, min(5.0, args.seconds))
            for number in range(args.rounds):
                row: dict[str, Any] = {"idle": _offer(args, url, files, rate)}
                with _job_running(url, folder) as counts:
                    row["job"] = _offer(args, url, files, rate)
                    found = counts()
                row["job_items"] = found["counts"]["succeeded"]
                if found["state"] != "running" and not args.quick:
                    raise SystemExit(
                        f"the job was over before the measurement: more than {max(args.memory_items)} files"
                    )
                rows.append(row)
                print(
                    f"round {number + 1}: p99 idle {row['idle']['p99']:.1f} ms, with a job {row['job']['p99']:.1f} ms"
                )
            memory = process.memory()
    ratios = [row["job"]["p99"] / row["idle"]["p99"] for row in rows]
    return {
        "model": model.manifest.name,
        "offered_per_second": rate,
        "load": args.load,
        "seconds": args.seconds,
        "rounds": rows,
        "p99_ratio": {"median": statistics.median(ratios), "rounds": ratios},
        "memory_mb": round(memory, 1),
    }


@contextlib.contextmanager
def _job_running(url: str, folder: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """A job over the folder that computes; cancelled in the end. Yields what asks how it is."""

    def ask() -> dict[str, Any]:
        found: dict[str, Any] = httpx2.get(f"{url}/v1/jobs/{job}", timeout=60).json()
        return found

    job = httpx2.post(f"{url}/v1/jobs", json={"input": {"path": str(folder)}}, timeout=60).json()["id"]
    while ask()["state"] == "queued" or (ask()["state"] == "running" and not ask()["counts"]["succeeded"]):
        time.sleep(0.1)  # it lists and opens the model, which is not what is measured
    yield ask
    httpx2.post(f"{url}/v1/jobs/{job}/cancel", timeout=60)
    while ask()["state"] in ("running", "cancelling"):
        time.sleep(0.1)


def _capacity(url: str, files: list[bytes], seconds: float) -> float:
    """Requests per second of one connection that asks again at once: less than the service could do."""
    began, done = time.monotonic(), 0
    with httpx2.Client(base_url=url, timeout=60) as client:
        while time.monotonic() - began < seconds:
            answer = client.post(POSTERIORS, content=files[done % len(files)], headers={"Content-Type": "image/png"})
            assert answer.status_code == 200
            done += 1
    return done / seconds


def _offer(args: argparse.Namespace, url: str, files: list[bytes], rate: float) -> dict[str, float]:
    """Quantiles of the latency in ms at so many requests per second; by a process of its own."""
    host, _, port = url.removeprefix("http://").partition(":")
    due = arrivals(rate, args.seconds, poisson=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "due.npy", due)
        for number, file in enumerate(files):
            body = request(POSTERIORS, f"{host}:{port}", file, "image/png", SAFETENSORS)
            (folder / str(number)).write_bytes(body)
        script = Path(__file__).with_name("open_loop.py")
        subprocess.run([sys.executable, script, host, port, folder], check=True)
        offered = Offered.load(folder / "offered.npz")
    answered = offered.status == 200
    p50, p99 = (1000 * np.quantile(offered.latency[answered], (0.5, 0.99))).tolist()
    late = float(1000 * np.quantile(offered.lateness, 0.99))
    return {"requests": len(due), "answered": int(answered.sum()), "p50": p50, "p99": p99, "generator_late_p99": late}


@contextlib.contextmanager
def _service(args: argparse.Namespace, model: Bundle, log: Path, *options: str) -> Iterator[tuple[Process, str]]:
    """`isolatent serve` on the same cores, ready."""
    (port,) = free_ports(1)
    command: Command = [sys.executable, "-m", "isolatent", "serve", model.path, "--port", str(port)]
    process = Process([*command, "--device", "cpu", *options], {}, log.parent, log, cores(args.cores)[0])
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{url}/readyz").status_code == 200:
                    break
            if not process.alive or time.monotonic() > end:
                raise SystemExit(f"the service does not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield process, url
    finally:
        process.stop(30.0)


if __name__ == "__main__":
    main()
