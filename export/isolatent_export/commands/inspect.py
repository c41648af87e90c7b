"""Show what a bundle is, what it expects, what it measured, how closely its engines agree and where its pictures are.

isolatent inspect bundles/digits
isolatent inspect bundles/digits --json

Only the manifest is read; `isolatent verify` checks whether it is true.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from isolatent.cli import CommandError
from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.manifest import ImageInput, InputSpec, Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", help="directory of the bundle")
    parser.add_argument("--json", action="store_true", help="print the manifest, sizes and pictures as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    try:
        bundle = Bundle.open(args.bundle)
    except BundleError as error:
        raise CommandError(str(error)) from None
    manifest = bundle.manifest
    size = sum(fact.bytes for fact in manifest.files.values())
    pictures = [str(bundle.file(name)) for name in sorted(manifest.files) if name.endswith(".png")]
    if args.json:
        print(json.dumps(manifest.public() | {"bytes": size, "pictures": pictures}, indent=2))
        return 0
    for title, text in _sections(manifest, size, pictures).items():
        head, *rest = text or ["none"]
        print(f"{title:<11} {_printable(head)}")
        for line in rest:
            print(f"{'':<11} {_printable(line)}")
    return 0


def _sections(manifest: Manifest, size: int, pictures: list[str]) -> dict[str, list[str]]:
    objective, training = manifest.objective, manifest.training
    examples = ", ".join(f"{count} {split}" for split, count in training.examples.items())
    tolerance = manifest.tolerance
    return {
        "model": [f"{manifest.name}, version {manifest.version}: {manifest.family}, {manifest.precision}"],
        "made": [f"{manifest.created.isoformat()} by isolatent {manifest.tools.get('isolatent', 'unknown')}"],
        "input": [_expected(manifest.input)],
        "latent": [", ".join(f"{group.name}: {group.size}" for group in manifest.latent.groups)],
        "output": [f"reconstructions {_shape(manifest.reconstruction_shape)}; error: {manifest.reconstruction_error}"],
        "objective": [
            f"{objective.arm}, lambda {objective.consistency_weight:g}, beta {objective.beta:g}, {objective.bound}",
            f"likelihood: {objective.likelihood}",
        ],
        "training": [
            f"{training.data} ({examples}), {training.epochs} epochs, {training.updates} updates, seed {training.seed}",
            f"git revision: {training.git_revision or 'none'}",
        ],
        "transforms": [_transform(each) for each in manifest.transforms],
        "metrics": [f"{name} {_number(value)}" for name, value in manifest.metrics.items() if _plain(value)],
        "parity": [
            *(
                f"{row.engine}, batch {row.batch}: mean {row.mean:.1e}, log-variance {row.log_variance:.1e}, "
                f"reconstruction {row.reconstruction:.1e}"
                for row in manifest.parity
            ),
            f"allowed: mean {tolerance.mean:.0e}, log-variance {tolerance.log_variance:.0e}, "
            f"reconstruction {tolerance.reconstruction:.0e}",
        ],
        "speed": _speed(manifest),
        "files": [f"{_bytes(size)} in all", *(f"{_bytes(f.bytes):>9} {n}" for n, f in sorted(manifest.files.items()))],
        "pictures": pictures,
    }


def _expected(spec: InputSpec) -> str:
    if isinstance(spec, ImageInput):
        colours = "grey" if spec.channels == 1 else "RGB"
        return f"images of any size, made {spec.height} x {spec.width} {colours} by {spec.resize} (fill {spec.fill})"
    return (
        f"clouds or meshes of any size, made {spec.points} points ({spec.sampling}), normalised: {spec.normalization}"
    )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _transform(facts: dict[str, Any]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "kind")
    return f"{facts.get('kind', 'unknown')}: {settings}" if settings else str(facts.get("kind", "unknown"))


def _plain(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _speed(manifest: Manifest) -> list[str]:
    if manifest.speed is None:
        return []
    where = f"{manifest.speed.engine}, {manifest.speed.cores} cores, {manifest.speed.processor}"
    rows = manifest.speed.rows
    return [where, *(f"batch {r.batch}: encode {r.encode_ms:.3g} ms, decode {r.decode_ms:.3g} ms" for r in rows)]


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _printable(text: str) -> str:
    """Text without characters that steer a terminal: a manifest may come from anybody."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
