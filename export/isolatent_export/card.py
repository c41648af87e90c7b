"""The model card: README.md of a bundle, written from the manifest alone."""

from __future__ import annotations

import json
import math
from typing import Any

from isolatent_export.manifest import ImageInput, InputSpec, Manifest

RECONSTRUCTIONS = "reconstructions.png"


def card(manifest: Manifest) -> str:
    """Markdown that says what the model is, what it takes, what it measured and how to use it."""
    spec, objective, training = manifest.input, manifest.objective, manifest.training
    image = isinstance(spec, ImageInput)
    noun = "image" if image else "cloud"
    examples = ", ".join(f"{count} {split}" for split, count in training.examples.items())
    return f"""{_front_matter(manifest)}# {manifest.name}

A {manifest.family} encoder of {_subject(spec)} into {manifest.latent.size} latent variables,
trained with the arm `{objective.arm}` of consistency regularization
(lambda {objective.consistency_weight:g}, beta {objective.beta:g}, bound {objective.bound}).

![inputs above, reconstructions below]({RECONSTRUCTIONS})

Above: validation inputs. Below: the decoder's output for their posterior means.

## Use

    isolatent verify .
    isolatent serve .
    isolatent embed {"image.png" if image else "scan.ply"} --url http://127.0.0.1:8000 --out embedding.npy

The embedding is the posterior mean, {manifest.latent.size} float32 numbers, the same for the same {noun} every time.
{_accepted(manifest)}

## Measured

{_table(manifest.metrics)}

## Training

Data `{training.data}` ({examples}), {training.epochs} epochs, {training.updates} updates, seed {training.seed},
likelihood: {objective.likelihood}.

## Parity

Largest absolute difference from the training framework on the golden samples:

| engine | batch | mean | log-variance | reconstruction |
|---|---|---|---|---|
{_parity(manifest)}

{_precision(manifest)}{_speed(manifest)}

## Limits

Trained on the data named above and on nothing else; distances between embeddings of other {noun}s mean little.
"""


def _front_matter(manifest: Manifest) -> str:
    """What the Hugging Face hub reads: YAML, of which JSON is a part, so that any name and number is safe in it."""
    facts: dict[str, Any] = {
        "library_name": "isolatent",
        "tags": ["isolatent", "embeddings", "variational-autoencoder", manifest.modality.replace("_", "-")],
    }
    source, colon, place = manifest.training.data.partition(":")
    data = f"{source}{colon}{place.rstrip('/').rpartition('/')[2]}"  # the folders above it say nothing to others
    metrics = [
        {"type": name, "name": name, "value": value}
        for name, value in manifest.metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]
    if metrics:
        result = {"task": {"type": "feature-extraction"}, "dataset": {"type": data, "name": data}, "metrics": metrics}
        facts["model-index"] = [{"name": manifest.name, "results": [result]}]
    lines = [f"{name}: {json.dumps(value)}" for name, value in facts.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def _subject(spec: InputSpec) -> str:
    if isinstance(spec, ImageInput):
        return f"{spec.height} x {spec.width} {'grey' if spec.channels == 1 else 'RGB'} images"
    return f"3D point clouds ({spec.points} points)"


def _accepted(manifest: Manifest) -> str:
    spec = manifest.input
    if isinstance(spec, ImageInput):
        return (
            f"Images of any size are accepted: resized by the rule `{spec.resize}`, "
            f"transparency laid on grey level {spec.fill}."
        )
    moved = {
        "unit_sphere": "moved and scaled into the unit sphere",
        "principal": "turned into their principal axes and scaled into the unit sphere",
        "none": "in their own units",
    }[spec.normalization]
    return (
        f"Clouds and meshes of any size are accepted: meshes sampled on their surface,\n"
        f"{spec.points} points taken (`{spec.sampling}`), {moved}.\n"
        f"Reconstructions are {manifest.reconstruction_shape[0]} points in that frame."
    )


def _table(metrics: dict[str, Any]) -> str:
    rows = [f"| {name} | {_number(value)} |" for name, value in metrics.items() if not isinstance(value, dict | list)]
    return "\n".join(["| metric | value |", "|---|---|", *rows]) if rows else "Not evaluated."


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parity(manifest: Manifest) -> str:
    return "\n".join(
        f"| {row.engine} | {row.batch} | {row.mean:.1e} | {row.log_variance:.1e} | {row.reconstruction:.1e} |"
        for row in manifest.parity
    )


def _precision(manifest: Manifest) -> str:
    if manifest.precision == "fp32":
        return ""
    return "The ONNX graphs have float16 weights, but for log-variances; the twins in PyTorch's formats have float32.\n"


def _speed(manifest: Manifest) -> str:
    speed = manifest.speed
    if speed is None:
        return ""
    rows = "; ".join(
        f"batch {row.batch}: {row.encode_ms:.3g} ms to encode, {row.decode_ms:.3g} to decode" for row in speed.rows
    )
    return f"Median times with {speed.engine} on {speed.cores} cores, {speed.processor}: {rows}."
