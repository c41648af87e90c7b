"""A trained run becomes a bundle: this is where training hands over to export."""

from __future__ import annotations

import os
from typing import Any

from isolatent_export.bundle import Bundle
from isolatent_export.manifest import Latent, LatentGroup, Objective, Precision
from isolatent_export.write import Export, write_bundle
from isolatent_train.data import Splits
from isolatent_train.exported import ExportedDecoder, ExportedEncoder
from isolatent_train.models import EXACT
from isolatent_train.run import Trained

GOLDEN = 32
"""Validation images stored with their outputs."""


def export_run(
    trained: Trained,
    splits: Splits,
    metrics: dict[str, Any],
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    version: str = "1",
    overwrite: bool = False,
    precision: Precision = "fp32",
) -> Bundle:
    """Write the bundle `out` of a trained model with its metrics. Raises BundleError as write_bundle does."""
    config, model = trained.config, trained.model
    encoder = ExportedEncoder(model)
    export = Export(
        encoder=encoder,
        decoder=ExportedDecoder(model, trained.likelihood),
        weights=model.state_dict(),
        config=config.values(),
        golden_inputs=splits.validation.inputs[:GOLDEN].numpy(),
        name=name or config.name,
        version=version,
        family=config.objective.family,
        objective=Objective(
            arm=config.objective.arm,
            bound=config.objective.bound,
            likelihood=trained.likelihood.description,
            consistency_weight=config.objective.effective_weight,
            beta=config.objective.beta,
            samples=config.objective.samples,
        ),
        input=trained.spec,
        latent=Latent(size=model.latent, groups=(LatentGroup(name="z", size=model.latent),)),
        transforms=tuple(each.model_dump(mode="json") for each in config.transforms),
        training=trained.training,
        metrics=metrics,
        precision=precision,
        exact=tuple(name for name, module in encoder.named_modules() if isinstance(module, EXACT)),
    )
    return write_bundle(export, out, overwrite=overwrite)
