"""The service past its capacity: what it accepts stays quick, what it refuses it refuses at once, and it recovers.

    python benchmarks/overload.py [--levels 1 2 5 10] [--seconds 60] [--max-queue 128] [--workers 1 2]
    python benchmarks/overload.py --quick               does everything work? Says nothing about speed

Capacity is what wrk reaches over 64 connections. Then requests are offered at multiples of it, open loop: they leave
when they are due, at random as independent users' do, and latency counts from then. After each level comes half the
capacity: how soon is latency normal again? On a machine without spare cores the generator takes time from the service;
how late it was itself stands beside every result, and it is measured first, at the highest rate, against a server that
does nothing.
Writes benchmarks/results/overload.json and docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import page
import wrk
from contestants import POSTERIORS, SAFETENSORS
from machine import RESULTS, write
from models import FOLDER, NAMES, bundle
from numpy.typing import NDArray
from open_loop import Offered, arrivals, request
from pictures import pictures, png
from processes import Process, cores, free_ports

from isolatent_export.bundle import Bundle

HOST = "127.0.0.1"
HALF = 0.5
"""Multiple of the capacity at which latency is normal, before and after a level."""
ALLOWANCE = 0.1
"""Seconds that an accepted request may take beyond what the queue takes."""
REJECTION = 0.05
"""Seconds that a refusal may take."""
RECOVERY = 5.0
LATE = 0.01
"""Seconds at the 99th percentile beyond which the generator was too late to judge by."""


def main() -> None:
    """Measure model by model, write the results and the page."""
    args = _arguments()
    wrk.require()
    on, load = cores(args.cores)
    print(f"service on cores {sorted(on)}, load on cores {sorted(load)}", flush=True)
    facts = {
        "seconds": args.seconds,
        "options": args.options,
        "max_queue": args.max_queue,
        "workers": args.workers,
        "connections": args.connections,
        "arrivals": args.arrivals,
        "server_cores": len(on),
        "load_shares_cores": bool(on & load),
        "models": {
            f"{Path(name).name}, {workers} worker{'s' * (workers > 1)}": _measure_model(args, bundle(name), workers)
            for name in args.models
            for workers in args.workers
        },
    }
    path = write("overload", ("isolatent", "onnxruntime", "fastapi", "uvicorn"), facts, folder=args.out)
    print(f"Written to {path} and {page.write(args.out, args.page)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["28x28x1", "96x96x3"], help=NAMES)
    parser.add_argument("--levels", nargs="+", type=float, default=[1, 2, 5, 10], help="multiples of the capacity")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a level")
    parser.add_argument("--calm", type=float, default=10.0, help="seconds of half the capacity after each level")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds of each measurement before the levels")
    parser.add_argument("--max-queue", type=int, default=128, help="of the service")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of the service, each with its queue")
    parser.add_argument("--options", default="", help="further options of the service, in one argument")
    parser.add_argument("--connections", type=int, default=4096, help="most that the generator opens")
    parser.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson")
    parser.add_argument("--cores", type=int, default=2, help="of the service; load comes from the others, if any")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--page", type=Path, default=page.PAGE)
    parser.add_argument("--quick", action="store_true", help="short levels, written to benchmarks/runs/quick/")
    args = parser.parse_args()
    if args.quick:
        args.levels, args.seconds, args.calm, args.settle, args.workers = [1, 10], 1.0, 1.0, 1.0, [1]
        args.out = FOLDER.parent / "quick"
        args.page = args.out / "benchmarks.md"
    return args


def _measure_model(args: argparse.Namespace, model: Bundle, workers: int) -> dict[str, Any]:
    files = [png(image) for image in pictures(model.manifest.input.shape, 16)]
    with tempfile.TemporaryDirectory() as folder, _service(args, model, workers, Path(folder)) as (process, port):
        capacity = _capacity(args, port, files, Path(folder))
        requests = [request(POSTERIORS, f"{HOST}:{port}", file, "image/png", SAFETENSORS) for file in files]
        proof = _proof(args, requests, capacity * max(args.levels))
        calm, _ = _run(args, process, port, requests, [(capacity * HALF, args.calm)])
        normal = _quantiles(calm.latency[calm.status == 200])
        print(f"{model.manifest.name}, {workers} workers: capacity {capacity:.0f}/s, normal p99 {normal['p99']:.1f} ms")
        room = args.max_queue * workers
        levels = [_level(args, process, port, requests, capacity, level, normal, room) for level in args.levels]
    return {
        "capacity": capacity,
        "bytes": len(files[0]),
        "normal_ms": normal,
        "generator": proof,
        "levels": levels,
    }


# ---- one level ----


def _level(
    args: argparse.Namespace,
    process: Process,
    port: int,
    requests: list[bytes],
    capacity: float,
    level: float,
    normal: dict[str, float],
    room: int,
) -> dict[str, Any]:
    """So many times the capacity, then half of it."""
    both, memory = _run(args, process, port, requests, [(capacity * level, args.seconds), (capacity * HALF, args.calm)])
    offered, after = both.where(both.due < args.seconds), both.where(both.due >= args.seconds)
    accepted, rejected = offered.status == 200, np.isin(offered.status, (429, 503))
    rate = int(accepted.sum()) / max(args.seconds, float(np.max(offered.done, where=accepted, initial=0.0)))
    bound = room / max(rate, 1e-9) + ALLOWANCE
    latency = {"accepted": offered.latency[accepted], "rejected": offered.latency[rejected]}
    statuses, counts = np.unique(offered.status, return_counts=True)
    found = {
        "level": level,
        "offered_per_second": len(offered.due) / args.seconds,
        "accepted_per_second": rate,
        "statuses": dict(zip(map(str, statuses.tolist()), counts.tolist(), strict=True)),
        "accepted_ms": _quantiles(latency["accepted"]),
        "rejected_ms": _quantiles(latency["rejected"]),
        "rejected_from_sent_ms": _quantiles((offered.done - offered.sent)[rejected]),
        "without_retry_after": int((rejected & ~offered.retry_after).sum()),
        "unexpected": int((~accepted & ~rejected & (offered.status != 504)).sum()),
        "bound_ms": 1000 * bound,
        "generator_late_ms": _quantiles(offered.lateness),
        "connections": offered.connections,
        "memory_mb": memory,
        "recovered_after": _recovered(after, args.seconds, normal),
        "timeline": _timeline(both),
    }
    found["holds"] = _holds(found)
    print(_line(found), flush=True)
    return found


def _holds(found: dict[str, Any]) -> dict[str, bool | None]:
    """What was promised, and whether it was kept; None where nothing was refused."""
    refused = found["rejected_ms"]["count"] > 0
    recovered = found["recovered_after"]
    return {
        "accepted in time": found["accepted_ms"]["p99"] < found["bound_ms"],
        "refused within 50 ms": found["rejected_ms"]["p99"] < 1000 * REJECTION if refused else None,
        "Retry-After on all refusals": found["without_retry_after"] == 0 if refused else None,
        "no other status": found["unexpected"] == 0,
        "normal within 5 s": recovered is not None and recovered <= RECOVERY,
        "generator on time": found["generator_late_ms"]["p99"] < 1000 * LATE,
    }


def _recovered(after: Offered, end: float, normal: dict[str, float], window: float = 0.25) -> float | None:
    """Seconds after `end`, the overload's, from which on every quarter of a second was normal: its median latency
    within twice the normal p99 plus 5 ms. None if that never came.
    """
    limit = (2 * normal["p99"] + 5) / 1000
    latency = np.where(after.status == 200, after.latency, np.inf)
    edges = np.arange(end, float(after.due[-1]), window)
    parts = [latency[(after.due >= edge) & (after.due < edge + window)] for edge in edges]
    bad = [number for number, part in enumerate(parts) if len(part) and np.median(part) > limit]
    if not bad:
        return 0.0
    return (bad[-1] + 1) * window if bad[-1] + 1 < len(parts) else None


def _timeline(offered: Offered) -> dict[str, list[float]]:
    """Per second that requests were due in: accepted and refused, and the p99 of both in ms."""
    edges = np.arange(0, float(offered.due[-1]), 1.0)
    rows: dict[str, list[float]] = {"second": edges.tolist()}
    for name, wanted in (("accepted", (200,)), ("rejected", (429, 503))):
        chosen = np.isin(offered.status, wanted)
        parts = [offered.latency[chosen & (offered.due >= edge) & (offered.due < edge + 1)] for edge in edges]
        rows[name] = [float(len(part)) for part in parts]
        rows[f"{name}_p99_ms"] = [_quantiles(part)["p99"] for part in parts]
    return rows


def _quantiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Of times in seconds, in ms."""
    known = seconds[np.isfinite(seconds)] * 1000
    if len(known) == 0:
        return {"count": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
    p50, p99, most = np.percentile(known, (50, 99, 100)).tolist()
    return {"count": len(known), "p50": round(p50, 3), "p99": round(p99, 3), "max": round(most, 3)}


def _line(found: dict[str, Any]) -> str:
    broken = [name for name, kept in found["holds"].items() if kept is False]
    return (
        f"  {found['level']:g}x: offered {found['offered_per_second']:.0f}/s, "
        f"accepted {found['accepted_per_second']:.0f}/s, p99 {found['accepted_ms']['p99']:.0f} ms "
        f"(bound {found['bound_ms']:.0f}), refused p99 {found['rejected_ms']['p99']:.1f} ms, {found['statuses']}, "
        f"late p99 {found['generator_late_ms']['p99']:.1f} ms, memory {max(found['memory_mb']['mb']):.0f} MB, "
        f"recovered after {found['recovered_after']} s" + (f"; NOT KEPT: {', '.join(broken)}" if broken else "")
    )


# ---- running ----


def _run(
    args: argparse.Namespace, process: Process, port: int, requests: list[bytes], parts: list[tuple[float, float]]
) -> tuple[Offered, dict[str, list[float]]]:
    """Offer (rate, seconds) after (rate, seconds): what came of it, and the service's memory meanwhile."""
    memory: dict[str, list[float]] = {"second": [], "mb": []}
    done = threading.Event()

    def watch() -> None:
        start = time.monotonic()
        while True:
            memory["second"].append(round(time.monotonic() - start, 1))
            memory["mb"].append(round(process.memory(), 1))
            if done.wait(1.0):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return _offer(args, port, requests, parts), memory
    finally:
        done.set()
        watcher.join()


def _offer(args: argparse.Namespace, port: int, requests: list[bytes], parts: list[tuple[float, float]]) -> Offered:
    """In a process of its own, that nothing else may delay it."""
    due, start = [], 0.0
    for rate, seconds in parts:
        times = arrivals(rate, seconds, poisson=args.arrivals == "poisson") + start
        start += seconds
        due.append(times[times < start])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "due.npy", np.concatenate(due))
        for number, each in enumerate(requests):
            (folder / str(number)).write_bytes(each)
        script = Path(__file__).with_name("open_loop.py")
        command: list[str | Path] = [sys.executable, script, HOST, str(port), folder]
        subprocess.run(
            [*command, "--connections", str(args.connections)],
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores(args.cores)[1]),
        )
        return Offered.load(folder / "offered.npz")


def _proof(args: argparse.Namespace, requests: list[bytes], rate: float) -> dict[str, Any]:
    """The same load against a server that does nothing, on the service's cores: what the generator can do here."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, Path(__file__).with_name("null_server.py"), str(port)]
        null = Process(command, {}, Path(folder), Path(folder) / "log", cores(args.cores)[0])
        try:
            time.sleep(1.0)
            offered = _offer(args, port, requests, [(rate, args.settle)])
        finally:
            null.stop()
    good = offered.status == 200
    late = _quantiles(offered.lateness)
    print(f"generator alone at {rate:.0f}/s: {int(good.sum())}/{len(good)} answered, late p99 {late['p99']:.1f} ms")
    return {
        "offered_per_second": rate,
        "answered": int(good.sum()) / len(good),
        "late_ms": late,
        "latency_ms": _quantiles(offered.latency),
    }


def _capacity(args: argparse.Namespace, port: int, files: list[bytes], folder: Path) -> float:
    """Requests per second in a closed loop of 64 connections, the median of three."""
    bodies = wrk.store(files, folder / "bodies")
    rates = [
        wrk.measure(
            f"http://{HOST}:{port}{POSTERIORS}",
            bodies,
            "image/png",
            SAFETENSORS,
            connections=64,
            seconds=args.settle,
            on=cores(args.cores)[1],
        ).rate
        for _ in range(4)
    ]
    return statistics.median(rates[1:])  # the first warms up


@contextlib.contextmanager
def _service(args: argparse.Namespace, model: Bundle, workers: int, folder: Path) -> Iterator[tuple[Process, int]]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "isolatent", "serve", model.path, "--port", str(port), "--device", "cpu"]
    command += ["--max-queue", str(args.max_queue), "--workers", str(workers), *shlex.split(args.options)]
    process = Process(command, {}, folder, folder / "log", cores(args.cores)[0])
    try:
        _wait(process, f"http://{HOST}:{port}/readyz")
        yield process, port
    finally:
        process.stop(60.0)


def _wait(process: Process, url: str, patience: float = 120.0) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end and process.alive:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(url).status_code == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"the service did not start: {process.log.read_text()[-500:]}")


if __name__ == "__main__":
    main()
