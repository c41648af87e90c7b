"""Serving, side by side: isolatent, its peers and the limits, same models, same cores, interleaved in one run.

    make bench                                          everything, the peers' environment included
    python benchmarks/serving.py [--only isolatent mosec] [--models 28x28x1] [--rounds 5] [--seconds 4]
    python benchmarks/serving.py --quick                does everything work? Says nothing about speed

All servers of a model run at once, but those that are not being measured are frozen (SIGSTOP): in each round each case
goes through all of them, one after the other. Load comes from wrk. Before that every server has answered a picture as
the model does, to 1e-4, and has been warmed up. Writes benchmarks/results/serving.json and docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import page
import wrk
from contestants import CONTESTANTS, PEERS_BIN, Contestant
from machine import RESULTS, write
from models import FOLDER, MODELS, NAMES, bundle
from pictures import npy, pictures, png
from processes import Process, cores, free_ports

from isolatent_export.bundle import Bundle
from isolatent_export.runtime import OnnxRuntime

BULK = 256
KINDS = {"png": ("image/png", 1, 16), "npy": ("application/x-npy", 1, 16), "bulk": ("application/x-npy", BULK, 2)}
"""What one request holds: media type, pictures, and how many different bodies take turns."""
CONNECTIONS = {"png": (1, 16, 32, 64), "npy": (1, 16, 64), "bulk": (1, 4)}
SETTLE = 0.3
"""Seconds between thawing a server and loading it."""
AGREE = 1e-4


@dataclass
class Entry:
    """A contestant that runs, and what was measured of it: case -> rounds."""

    contestant: Contestant
    process: Process
    address: str
    bodies: dict[str, tuple[Path, str]] = field(default_factory=dict)
    rounds: dict[str, list[wrk.Measured]] = field(default_factory=dict)


def main() -> None:
    """Measure model by model, write the results and the page."""
    args = _arguments()
    wrk.require()
    on, load = cores(args.cores)
    print(f"servers on cores {sorted(on)}, wrk on cores {sorted(load)}", flush=True)
    failed: dict[str, str] = {}
    chosen = [each for each in CONTESTANTS if not args.only or any(name in each.name for name in args.only)]
    models = {Path(name).name: _measure_model(args, bundle(name), chosen, failed) for name in args.models}
    facts = {
        "rounds": args.rounds,
        "seconds": args.seconds,
        "server_cores": len(on),
        "load_shares_cores": bool(on & load),
        "peer_versions": _peer_versions(),
        "contestants": {each.name: {"settings": each.settings, "documented": each.documented} for each in chosen},
        "failed": failed,
        "models": models,
    }
    packages = ("isolatent", "onnxruntime", "fastapi", "uvicorn", "numpy", "pillow")
    path = write("serving", packages, facts, folder=args.out)
    print(f"Written to {path} and {page.write(args.out, args.page)}")
    if failed:
        sys.exit("; ".join(f"{name}: {reason}" for name, reason in failed.items()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS)[:3], help=NAMES)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants whose name has one of these in it")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds per server and kind of body, unmeasured")
    parser.add_argument("--cores", type=int, default=2, help="cores of a server; load comes from the others, if any")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--page", type=Path, default=page.PAGE)
    parser.add_argument("--quick", action="store_true", help="one short round, written to benchmarks/runs/quick/")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.warm_up = 1, 1.0, 1.0
        args.out = FOLDER.parent / "quick"
        args.page = args.out / "benchmarks.md"
    return args


def _measure_model(
    args: argparse.Namespace, model: Bundle, chosen: Sequence[Contestant], failed: dict[str, str]
) -> dict[str, Any]:
    load = cores(args.cores)[1]
    limits: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        files = _files(model)
        entries = list(_start(args, model, chosen, files, Path(folder), stack, failed))
        cases = [(kind, connections) for kind in args.kinds for connections in CONNECTIONS[kind]]
        for number in range(args.rounds):
            for name, rate in _limits(args, model).items():
                limits.setdefault(name, []).append(rate)
            for kind, connections in cases:
                turn = number % len(entries) if entries else 0
                for entry in entries[turn:] + entries[:turn]:  # nobody is always first
                    with _thawed(entry):
                        measured = _load(entry, kind, connections, args.seconds, load)
                    entry.rounds.setdefault(f"{kind} {connections}", []).append(measured)
                    print(_line(model, number, kind, connections, entry, measured), flush=True)
    return {
        "input": list(model.manifest.input.shape),
        "latent": model.manifest.latent.size,
        "bytes": {kind: len(files[kind][0]) for kind in args.kinds},
        "limits": {name: _summary(rates) for name, rates in limits.items()},
        "cases": {
            f"{kind} {connections}": {
                "kind": kind,
                "connections": connections,
                "images": KINDS[kind][1],
                "results": {each.contestant.name: _case(each.rounds[f"{kind} {connections}"]) for each in entries},
            }
            for kind, connections in cases
        },
    }


# ---- starting ----


def _start(
    args: argparse.Namespace,
    model: Bundle,
    chosen: Sequence[Contestant],
    files: dict[str, list[bytes]],
    folder: Path,
    stack: contextlib.ExitStack,
    failed: dict[str, str],
) -> Iterator[Entry]:
    """Every contestant that starts and answers right, warm and frozen."""
    on, load = cores(args.cores)
    for number, contestant in enumerate(chosen):
        if not contestant.available:
            failed[contestant.name] = "not installed; run: make bench"
            continue
        work = folder / str(number)
        work.mkdir()
        (port,) = free_ports(1)
        command, env, place = contestant.start(model, port, work, len(on))
        process = Process(command, env, place, work / "log", on)
        stack.callback(process.stop)
        entry = Entry(contestant, process, f"http://127.0.0.1:{port}")
        try:
            _require_right(entry, model, files["png"][0])
        except (RuntimeError, httpx2.TransportError) as error:
            failed[contestant.name] = str(error)
            print(f"{contestant.name} is left out: {error}", file=sys.stderr, flush=True)
            process.stop()
            continue
        for kind in args.kinds:
            wrapped = [contestant.wrap(KINDS[kind][0], body) for body in files[kind]]
            entry.bodies[kind] = wrk.store([body for _, body in wrapped], work / kind), wrapped[0][0]
            _load(entry, kind, max(CONNECTIONS[kind]), args.warm_up, load)
        process.rest()
        process.freeze()
        stack.callback(process.thaw)  # before it is stopped
        yield entry


def _require_right(entry: Entry, model: Bundle, file: bytes, patience: float = 120.0) -> None:
    """Wait for the first answer and compare it with the model's own. Raises RuntimeError."""
    mean, log_variance = OnnxRuntime(model, threads=1).encode(pictures(model.manifest.input.shape, 1))
    expected = np.concatenate([mean[0], np.exp(log_variance[0])])
    media_type, body = entry.contestant.wrap("image/png", file)
    headers = {"Content-Type": media_type, "Accept": entry.contestant.accept}
    end, last = time.monotonic() + patience, "no answer"
    while time.monotonic() < end and entry.process.alive:
        with contextlib.suppress(httpx2.TransportError):
            answer = httpx2.post(entry.address + entry.contestant.path, content=body, headers=headers, timeout=30)
            if answer.status_code == 200:
                got = entry.contestant.read(answer.content)
                if got.shape != expected.shape or not np.abs(got - expected).max() < AGREE:
                    raise RuntimeError(f"answers {got[:3]}..., the model says {expected[:3]}...")
                return
            last = f"{answer.status_code}: {answer.text[:200]}"
        time.sleep(0.2)
    words = entry.process.log.read_text(errors="replace").strip().splitlines()
    raise RuntimeError(f"did not start ({last}); its last words: {' | '.join(words[-3:])}")


def _files(model: Bundle) -> dict[str, list[bytes]]:
    """The bodies of each kind, before a contestant wraps them."""
    found: dict[str, list[bytes]] = {}
    for kind, (_, images, bodies) in KINDS.items():
        all_images = pictures(model.manifest.input.shape, images * bodies)
        found[kind] = [png(part[0]) if kind == "png" else npy(part) for part in np.split(all_images, bodies)]
    return found


# ---- measuring ----


@contextlib.contextmanager
def _thawed(entry: Entry) -> Iterator[None]:
    entry.process.thaw()
    time.sleep(SETTLE)
    try:
        yield
    finally:
        entry.process.rest()  # frozen within a batch it would seem to hang, to itself, when it is thawed
        entry.process.freeze()


def _load(entry: Entry, kind: str, connections: int, seconds: float, load: set[int]) -> wrk.Measured:
    bodies, content_type = entry.bodies[kind]
    contestant = entry.contestant
    url = entry.address + (contestant.bulk_path if kind == "bulk" and contestant.bulk_path else contestant.path)
    return wrk.measure(url, bodies, content_type, contestant.accept, connections=connections, seconds=seconds, on=load)


def _limits(args: argparse.Namespace, model: Bundle) -> dict[str, float]:
    """Images per second without a server, in a process of its own."""
    script = Path(__file__).with_name("limits.py")
    command = [sys.executable, script, model.path, "--cores", str(args.cores), "--seconds", str(args.seconds)]
    rates: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return rates


def _case(rounds: Sequence[wrk.Measured]) -> dict[str, Any]:
    return {
        "requests_per_second": _summary([each.rate for each in rounds]),
        "p50_ms": _summary([each.p50_ms for each in rounds]),
        "p99_ms": _summary([each.p99_ms for each in rounds]),
        "errors": sum(each.errors for each in rounds),
        "rounds": [asdict(each) for each in rounds],
    }


def _summary(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "rounds": values}


def _line(model: Bundle, number: int, kind: str, connections: int, entry: Entry, measured: wrk.Measured) -> str:
    return (
        f"{model.manifest.name} round {number + 1} {kind:4} x{connections:<3} {entry.contestant.name:26} "
        f"{measured.rate * KINDS[kind][1]:8.0f} images/s  p50 {measured.p50_ms:7.1f}  p99 {measured.p99_ms:7.1f} ms"
        + (f"  {measured.errors} ERRORS" if measured.errors else "")
    )


def _peer_versions() -> dict[str, str]:
    """Everything in the peers' environment."""
    if not PEERS_BIN.is_dir():
        return {}
    command = [PEERS_BIN / "python", "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {each["name"]: each["version"] for each in found}


if __name__ == "__main__":
    main()
