"""Point clouds: the table over arms and seeds, throughput of the service beside its limit, speed of training.

    python benchmarks/pointcloud.py table --name modelnet10 --recipe modelnet10 --data modelnet:FILE.h5
    python benchmarks/pointcloud.py serve [BUNDLE]
    python benchmarks/pointcloud.py train

The table is resumable, as benchmarks/paper_table.py says; below it stand linear and RBF support vector machines on
hand-made features that do not depend on the pose. `serve` and `train` write benchmarks/results/pointcloud-*.json
and docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import io
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import page
import paper_table
import torch
from load import rate
from machine import RESULTS, settings_of, write
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from isolatent_export.bundle import Bundle
from isolatent_export.runtime import OnnxRuntime
from isolatent_train.config import Config, DataSection
from isolatent_train.data import Labelled, load_data
from isolatent_train.likelihoods import build_likelihood
from isolatent_train.run import initial_model
from isolatent_train.service import service
from isolatent_train.step import TrainingStep
from isolatent_train.streams import stream

BULK = 256
DRAWS = 8192
"""Pairs and triangles that the hand-made features of one cloud are computed from."""


def main() -> None:
    """Run one of the three measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    paper_table.add_arguments(commands.add_parser("table", help="arms x seeds"))
    serving = commands.add_parser("serve", help="clouds/s of the service and of ONNX Runtime alone")
    serving.add_argument("bundle", nargs="?", type=Path, default=Path("demo/bundles/shapes-cr"))
    training = commands.add_parser("train", help="updates/s of training and what they are spent on")
    training.add_argument("--recipe", default="shapes")
    training.add_argument("--points", type=int, nargs="+", default=[128, 1024], help="per cloud (128 1024)")
    for each in (serving, training):
        each.add_argument("--rounds", type=int, default=5)
        each.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
        each.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
        each.add_argument("--page", type=Path, default=page.PAGE)
    args = parser.parse_args()
    {"table": _table, "serve": _serve, "train": _train}[args.command](args)


# ---- the table ----


def _table(args: argparse.Namespace) -> None:
    data = Config.load(args.recipe, [f"data.spec={args.data}", *args.set]).data
    paper_table.measure(args, baselines=_hand_made(data))


def _hand_made(data: DataSection) -> dict[str, float]:
    """Test accuracy of support vector machines on histograms of distances, radii and triangle areas."""
    splits = load_data(data.model_copy(update={"normalization": "unit_sphere"}))
    train, test = _features(splits.train), _features(splits.test)
    machines = {"Linear SVM": lambda c: LinearSVC(C=c, dual="auto", max_iter=5000), "RBF SVM": lambda c: SVC(C=c)}
    return {
        f"{name} on hand-made, pose-invariant features": _accuracy(make, train, test) for name, make in machines.items()
    }


def _features(part: Labelled) -> tuple[NDArray[Any], NDArray[Any]]:
    """Histograms (N, 3 * 32) of pair distances, roots of triangle areas and radii, and the labels (N,)."""
    assert part.labels is not None
    places = torch.randint(0, part.inputs.shape[1], (3, DRAWS), generator=stream(0, "hand-made features")).numpy()
    rows = []
    for cloud in part.inputs.numpy():
        a, b, c = cloud[places[0]], cloud[places[1]], cloud[places[2]]
        values = (
            np.linalg.norm(a - b, axis=1) / 2,
            np.sqrt(np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2),
            np.linalg.norm(cloud, axis=1),
        )
        rows.append(np.concatenate([np.histogram(each, 32, (0, 1))[0] / len(each) for each in values]))
    return np.array(rows, np.float32), part.labels.numpy()


def _accuracy(
    make: Callable[[float], Any], train: tuple[NDArray[Any], NDArray[Any]], test: tuple[NDArray[Any], NDArray[Any]]
) -> float:
    """C is chosen on a fifth of the training examples, as the probe of the encoders does."""
    order = np.random.default_rng(0).permutation(len(train[0]))
    fitted, held = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]

    def score(strength: float, used: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> float:
        return float(make_pipeline(StandardScaler(), make(strength)).fit(train[0][used], train[1][used]).score(x, y))

    best = max((0.01, 0.1, 1.0, 10.0, 100.0), key=lambda c: score(c, fitted, train[0][held], train[1][held]))
    return score(best, order, *test)


# ---- serving ----


def _serve(args: argparse.Namespace) -> None:
    bundle = Bundle.open(args.bundle)
    points = bundle.manifest.input.shape[0]
    clouds = np.random.default_rng(0).normal(size=(BULK, points, 3)).astype(np.float32)
    runtime = OnnxRuntime(bundle)
    rates: dict[str, list[float]] = {}
    with service([args.bundle]) as url, httpx2.Client(base_url=url, timeout=60) as client:
        cases: dict[str, tuple[Callable[[], object], int, int]] = {
            f"ONNX Runtime alone, batches of {BULK}": (lambda: runtime.encode(clouds), BULK, 1),
            "ONNX Runtime alone, batches of 64": (lambda: runtime.encode(clouds[:64]), 64, 1),
            f"service, npy bodies of {BULK}, 1 connection": (
                _poster(client, _npy(clouds), "application/x-npy"),
                BULK,
                1,
            ),
            f"service, npy bodies of {BULK}, 4 connections": (
                _poster(client, _npy(clouds), "application/x-npy"),
                BULK,
                4,
            ),
            "ONNX Runtime alone, single clouds": (lambda: runtime.encode(clouds[:1]), 1, 1),
            "service, single npy, 8 connections": (_poster(client, _npy(clouds[:1]), "application/x-npy"), 1, 8),
            "service, single PLY, 8 connections": (_poster(client, _ply(clouds[0]), "model/ply"), 1, 8),
        }
        for _ in range(args.rounds):
            for name, (call, count, threads) in cases.items():
                rates.setdefault(name, []).append(rate(call, threads, args.seconds) * count)
    _report(args, "pointcloud-serving", rates, {"bundle": bundle.manifest.name, "points": points})


def _poster(client: httpx2.Client, body: bytes, kind: str) -> Callable[[], object]:
    headers = {"Content-Type": kind, "Accept": "application/x-safetensors"}
    return lambda: client.post("/v1/posteriors", content=body, headers=headers).raise_for_status()


def _npy(clouds: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, clouds)
    return stream.getvalue()


def _ply(cloud: NDArray[np.float32]) -> bytes:
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(cloud)}\n{axes}end_header\n"
    return header.encode() + cloud.astype("<f4").tobytes()


# ---- training ----


def _train(args: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {}
    cases = {
        f"{net}, {arm}, {points} points": _updater(
            Config.load(args.recipe, [f"model.net={net}", f"objective.arm={arm}", f"data.points={points}"])
        )
        for points in args.points
        for net in ("folding", "dgcnn")
        for arm in ("base", "cr")
    }
    config = Config.load(args.recipe, [])
    for _ in range(args.rounds):
        for name, call in cases.items():
            rates.setdefault(name, []).append(rate(call, 1, args.seconds) * config.training.batch_size)
    facts = {"settings": settings_of(config), "device": "cpu", "threads": torch.get_num_threads()}
    _report(args, "pointcloud-training", rates, facts)


def _updater(config: Config) -> Callable[[], object]:
    """One optimiser step on the same batch, over and over."""
    splits = load_data(config.data)
    step = TrainingStep(initial_model(config, splits.spec), build_likelihood(config.likelihood), config).train()
    optimiser = torch.optim.Adam(step.parameters(), lr=1e-4, fused=True)
    clouds, generator = splits.train.inputs[: config.training.batch_size], torch.Generator().manual_seed(0)

    def update() -> None:
        loss, _ = step(clouds, generator, 1.0, 1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return update


# ---- both ----


def _report(args: argparse.Namespace, name: str, rates: dict[str, list[float]], facts: dict[str, Any]) -> None:
    medians = {case: round(statistics.median(values), 1) for case, values in rates.items()}
    measured = {case: {"median": medians[case], "rounds": rates[case]} for case in rates}
    versions = ("isolatent", "torch", "onnxruntime", "numpy")
    path = write(name, versions, facts | {"clouds_per_second": measured}, folder=args.out)
    for case, median in medians.items():
        print(f"{case:<55} {median:>10,.1f} clouds/s")
    print(f"Written to {path} and {page.write(args.out, args.page)}")


if __name__ == "__main__":
    main()
