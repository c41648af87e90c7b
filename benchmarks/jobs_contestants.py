"""What batch jobs are compared with, each a command over a folder of files: benchmarks/jobs.py runs them.

python benchmarks/jobs_contestants.py limit BUNDLE FOLDER OUT [--cores 2]       decoding and ONNX Runtime, no job
python benchmarks/jobs_contestants.py naive-ray BUNDLE FOLDER OUT [--cores 2]   Ray Data as its tutorials have it
python benchmarks/jobs_contestants.py post URL FOLDER OUT                       every file to a service, by the SDK
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isolatent import Client
from isolatent_export.bundle import Bundle
from isolatent_export.inputs import Limits, decode_item
from isolatent_export.manifest import ImageInput
from isolatent_export.runtime import OnnxRuntime

BATCH = 64

Array = NDArray[Any]


def main() -> None:
    """Be one of the contestants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestant", choices=("limit", "naive-ray", "post"))
    parser.add_argument("model", help="folder of a bundle, or the address of a service")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    {"limit": _limit, "naive-ray": _naive_ray, "post": _post}[args.contestant](args)


class Embedder:
    """A model, and files as it takes them: the barest code that gives the right numbers."""

    def __init__(self, path: str) -> None:
        bundle = Bundle.open(Path(path))
        self._spec = bundle.manifest.input
        self._runtime = OnnxRuntime(bundle, threads=1)

    def __call__(self, batch: dict[str, Array]) -> dict[str, Array]:
        """`bytes` (N,) -> means and variances, each (N, d)."""
        mean, log_variance = self._runtime.encode(np.stack([self._decode(data) for data in batch["bytes"]]))
        return {"mean": mean, "variance": np.exp(log_variance)}

    def _decode(self, data: bytes) -> Array:
        spec = self._spec
        if not isinstance(spec, ImageInput):
            return decode_item(data, spec, Limits())
        picture = Image.open(io.BytesIO(data)).convert("L" if spec.channels == 1 else "RGB")
        if picture.size != (spec.width, spec.height):
            picture = picture.resize((spec.width, spec.height))
        return np.asarray(picture).reshape(spec.shape)


def _limit(args: argparse.Namespace) -> None:
    """As many processes as cores, each with every n-th file; the numbers are kept in memory and written once."""
    paths = _paths(args.folder)
    context = multiprocessing.get_context("spawn")
    shares = [paths[number :: args.cores] for number in range(args.cores)]
    outs = [args.out / f"{number}.npy" for number in range(args.cores)]
    works = [(args.model, share, out) for share, out in zip(shares, outs, strict=True)]
    running = [context.Process(target=_share, args=work) for work in works]
    for each in running:
        each.start()
    for each in running:
        each.join()
        assert each.exitcode == 0


def _share(model: str, paths: list[str], out: Path) -> None:
    embedder, means = Embedder(model), []
    for start in range(0, len(paths), BATCH):
        files = [Path(path).read_bytes() for path in paths[start : start + BATCH]]
        means.append(embedder({"bytes": np.array(files, dtype=object)})["mean"])
    np.save(out, np.concatenate(means))


def _naive_ray(args: argparse.Namespace) -> None:
    """read_binary_files, map_batches on as many actors as cores, write_parquet; no resume, no errors per file.

    Reading needs cores of its own, or the actors wait for ever for what is never read: half of one for each actor.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # 127.0.0.1 only
    import ray

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as work:
        ray.init("local", num_cpus=args.cores, include_dashboard=False, log_to_driver=False, _temp_dir=work)
        dataset = ray.data.read_binary_files(str(args.folder), include_paths=True)
        actors = ray.data.ActorPoolStrategy(size=args.cores)
        results = dataset.map_batches(
            Embedder, fn_constructor_args=(args.model,), batch_size=BATCH, compute=actors, num_cpus=0.5
        )
        results.write_parquet(str(args.out))
        ray.shutdown()


def _post(args: argparse.Namespace) -> None:
    """Client.embed over all files, with its defaults."""
    with Client(args.model, timeout=300) as client:
        np.save(args.out / "embeddings.npy", client.embed(_paths(args.folder)))


def _paths(folder: Path) -> list[str]:
    return sorted(entry.path for entry in os.scandir(folder))


if __name__ == "__main__":
    main()
