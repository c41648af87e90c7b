"""The model card: README.md of a bundle, written from the manifest alone."""

from __future__ import annotations

from typing import Any

from isolatent_export.manifest import Manifest

RECONSTRUCTIONS = "reconstructions.png"


def card(manifest: Manifest) -> str:
    """Markdown that says what the model is, what it takes, what it measured and how to use it."""
    spec, objective, training = manifest.input, manifest.objective, manifest.training
    examples = ", ".join(f"{count} {split}" for split, count in training.examples.items())
    return f"""# {manifest.name}

A {manifest.family} encoder of {spec.height} x {spec.width} {"grey" if spec.channels == 1 else "RGB"} images into
{manifest.latent.size} latent variables, trained with the arm `{objective.arm}` of consistency regularization
(lambda {objective.consistency_weight:g}, beta {objective.beta:g}, bound {objective.bound}).

![inputs above, reconstructions below]({RECONSTRUCTIONS})

Above: validation inputs. Below: the decoder's output for their posterior means.

## Use

    isolatent verify .
    isolatent serve .
    isolatent embed image.png --url http://127.0.0.1:8000 --out embedding.npy

The embedding is the posterior mean, {manifest.latent.size} float32 numbers, the same for the same image every time.
Images of any size are accepted: resized by the rule `{spec.resize}`, transparency laid on grey level {spec.fill}.

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

## Limits

Trained on the data named above and on nothing else; distances between embeddings of other images mean little.
"""


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
