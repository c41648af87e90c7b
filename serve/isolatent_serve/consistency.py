"""How far posteriors move under the model's own transformations, in nats and against the distance of strangers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from isolatent_export import Bundle, BundleError
from isolatent_export.bundle import GOLDEN, file_digest
from isolatent_serve import transforms
from isolatent_serve.outputs import Array, Graphs, Output, Tensors
from isolatent_serve.problems import Problem
from isolatent_serve.transforms import Transform

_SEED = 20260701
"""Copy k of every input is drawn from (_SEED, k): the same request has the same answer, today and tomorrow."""


@dataclass(frozen=True)
class Consistency:
    """A computation on the graphs of the model in `path`, whose golden samples have the digest `golden`."""

    transforms: tuple[Transform, ...]
    samples: int
    path: Path
    golden: str

    def __call__(self, graphs: Graphs, items: Array) -> Tensors:
        """Mean KL(q(z|x~) || q(z|x)) over the copies in nats (N,), and that divided by the reference (N,).

        Raises Problem `consistency_unavailable`.
        """
        scale = _scale(self.path, self.golden)
        original, total = graphs.encode(items), np.zeros(len(items))
        with np.errstate(over="ignore", invalid="ignore"):  # infinities are found, and named, afterwards
            for copy in range(self.samples):
                moved = transforms.transform(items, self.transforms, np.random.default_rng((_SEED, copy)))
                total += divergence(graphs.encode(moved), original)
            kl = total / self.samples
            return {"kl": kl.astype(np.float32), "normalized": (kl / scale).astype(np.float32)}


def of(bundle: Bundle, samples: int) -> Consistency:
    """The computation for a model, without its reference. Raises Problem `consistency_unavailable`."""
    manifest = bundle.manifest
    if not manifest.transforms:
        raise _unavailable(f"{manifest.name} has no transformations in its manifest; ask a model that has some")
    try:
        chain = transforms.read(manifest.transforms, manifest.modality)
    except transforms.Unavailable as reason:
        raise _unavailable(f"{manifest.name}: this service has no transformation {reason}; update isolatent") from None
    return Consistency(chain, samples, bundle.path, manifest.files[GOLDEN].sha256)


def divergence(left: tuple[Array, Array], right: tuple[Array, Array]) -> Array:
    """KL(left || right) in nats (N,) of normal distributions (mean, log-variance), each (N, d)."""
    (mean, log_variance), (other_mean, other_log_variance) = (np.asarray(side, np.float64) for side in (left, right))
    scaled = np.exp(log_variance - other_log_variance) + (mean - other_mean) ** 2 * np.exp(-other_log_variance)
    return np.asarray(0.5 * np.sum(other_log_variance - log_variance - 1 + scaled, axis=1))


def remember(bundle: Bundle) -> None:
    """Measure the model's reference while its files are certainly there. Raises BundleError when they are not."""
    reference(bundle.path, bundle.manifest.files[GOLDEN].sha256)


@lru_cache(maxsize=1024)
def reference(path: Path, digest: str) -> float:
    """Mean KL between different golden inputs of the bundle at `path`, as evaluation pairs them: halfway round.

    Raises BundleError when the files there are not, or no longer, those of the model.
    """
    golden = Bundle.open(path).golden()
    if file_digest(path / GOLDEN) != digest:
        raise BundleError(f"{path / GOLDEN}: not the model's; copy or export the bundle again")
    posterior = golden.mean, golden.log_variance
    shift = len(golden.mean) // 2
    strangers = np.roll(golden.mean, shift, axis=0), np.roll(golden.log_variance, shift, axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(divergence(strangers, posterior).mean())


def _scale(path: Path, digest: str) -> float:
    try:
        scale = reference(path, digest)
    except BundleError as error:  # its files have gone since the model was loaded
        raise _unavailable(str(error)) from None
    if np.isfinite(scale) and scale > 0:
        return scale
    raise _unavailable(f"the model does not tell its golden inputs apart (mean KL {scale}); ask another model")


def _unavailable(detail: str) -> Problem:
    return Problem("consistency_unavailable", detail, errors=[("/model", detail)])


CONSISTENCY = Output(
    kind="consistency",
    prepare=of,
    shapes=lambda _: {"kl": (), "normalized": ()},
    options=frozenset({"samples"}),
)
