"""A configuration against the inputs that the data turned out to hold."""

from __future__ import annotations

from isolatent_export.manifest import InputSpec, PointCloudInput
from isolatent_train.config import Config, ConfigError
from isolatent_train.likelihoods import build_likelihood
from isolatent_train.models import NETS
from isolatent_train.transforms import require_modality

LIKELIHOODS = {"image": ("bernoulli", "logistic"), "point_cloud": ("chamfer",)}

NAMES = {"image": "images", "point_cloud": "point clouds"}


def require_fitting(config: Config, spec: InputSpec) -> None:
    """Raise ConfigError naming the first setting that is not for inputs of this specification, and what is."""
    what = f"data {config.data.spec!r} holds {NAMES[spec.modality]}"
    if config.model.net not in NETS[spec.modality]:
        nets = " or ".join(NETS[spec.modality])
        raise ConfigError(f"{what}, model.net={config.model.net} takes others; set model.net={nets}")
    if build_likelihood(config.likelihood).modality != spec.modality:
        kinds = " or ".join(LIKELIHOODS[spec.modality])
        raise ConfigError(f"{what}, likelihood.kind={config.likelihood.kind} is of others; set likelihood.kind={kinds}")
    try:
        require_modality(config.transforms, spec.modality)
    except ValueError as error:
        raise ConfigError(f"{what}; {error}") from None
    if isinstance(spec, PointCloudInput) and spec.points < config.model.neighbours:
        raise ConfigError(
            f"data.points={spec.points} is fewer than model.neighbours={config.model.neighbours}; "
            "set more points or fewer neighbours"
        )
