"""The typed configuration of a training run, read from a recipe and changed key by key.

Unknown keys are refused. Every weight applies to terms in nats, summed over pixels or latent dimensions and averaged
over the batch, so that a number means the same for every image size.
"""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from isolatent_export.manifest import NAME_PATTERN
from isolatent_train.transforms import Transforms


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and the remedy."""


class Section(BaseModel):
    """Base of every section: immutable, closed, written with the names used in recipes."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


class DataSection(Section):
    """What to train on, what one input becomes, and how data without official splits is split."""

    spec: str = "digits"
    """A data specification, SOURCE or SOURCE:PLACE: see `isolatent train --help`."""
    size: tuple[PositiveInt, PositiveInt] | None = None
    """(height, width) of the encoder's input; None: the source's own size (files: 64 x 64)."""
    channels: Literal[1, 3] | None = None
    """1 grey, 3 colour; None: the source's own (files: 3)."""
    resize: Literal["fit", "stretch", "crop"] = "fit"
    fill: int = Field(default=0, ge=0, le=255)
    points: int = Field(default=1024, ge=8, le=65_536)
    """Points of one cloud after sampling; for point clouds, as are the next two."""
    normalization: Literal["unit_sphere", "principal", "none"] = "unit_sphere"
    sampling: Literal["random", "farthest"] = "random"
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of the inputs set aside for validation where the source has no official validation split."""
    test: float = Field(default=0.2, gt=0, lt=1)
    """Fraction set aside for testing where the source has no official test split."""
    split_seed: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    """Train on the first so many inputs of the training split; None: on all."""
    strict: bool = False
    """Stop at the first file that cannot be read instead of leaving it out and naming it."""

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        return (size, size) if isinstance(size, int) else size


class ModelSection(Section):
    """The network."""

    net: Literal["conv", "residual", "folding", "dgcnn"] = "conv"
    """Images: conv, stride-2 convolutions as in the paper's small VAEs, or residual, with residual blocks between them.
    Point clouds: folding, FoldingNet's graph encoder, or dgcnn, edge convolutions; both with a folding decoder."""
    latent: int = Field(default=16, ge=1, le=4096)
    """Number of latent variables d."""
    channels: tuple[int, ...] = Field(default=(32, 64), min_length=1, max_length=8)
    """Images: channels after each halving, first to last; the decoder mirrors them. Point clouds: features per point
    after each graph layer, the last being those of the whole cloud."""
    blocks: int = Field(default=1, ge=1, le=16)
    """Residual blocks per resolution; for the net `residual` only."""
    neighbours: int = Field(default=16, ge=2, le=64)
    """k of the nearest-neighbour graph; for point clouds, as are the next two."""
    grid: int = Field(default=32, ge=3, le=128)
    """Side of the square of points that the decoder folds: reconstructions have grid * grid points."""
    folding: int = Field(default=128, ge=8, le=2048)
    """Features per point within the folding decoder."""

    @field_validator("channels")
    @classmethod
    def _positive(cls, channels: tuple[int, ...]) -> tuple[int, ...]:
        if min(channels) < 1:
            raise ValueError("every number of channels must be at least 1")
        return channels


class LikelihoodSection(Section):
    """p(x|z)."""

    kind: Literal["bernoulli", "logistic", "chamfer"] = "bernoulli"
    """bernoulli: binary pixels, for characters; logistic: discretised logistic over 256 levels, for grey and colour;
    chamfer: points scattered around their nearest counterparts, for point clouds."""
    binarize: Literal["dynamic", "expected"] = "dynamic"
    """bernoulli: grey levels are probabilities of binary pixels. dynamic: pixels are drawn at each update, encoded and
    reconstructed; expected: the grey image is encoded, as a service does, and the expected log-likelihood over its
    binary pixels is reconstructed."""
    scale: float = Field(default=0.05, gt=0)
    """chamfer: standard deviation of a point around its counterpart, in units of the normalised cloud."""


class ObjectiveSection(Section):
    """What is optimised (Sinha & Dieng 2021, eq. 5). All terms in nats, summed over pixels or latent dimensions."""

    arm: Literal["base", "augmentation", "cr", "triplet"] = "cr"
    """base: L(x); augmentation: L(x) + L(x~); cr: the same minus lambda KL(q(z|x~) || q(z|x)); triplet: the same minus
    lambda times the triplet loss of the posterior means, with which the paper compares."""
    bound: Literal["elbo", "iwae"] = "elbo"
    weight: float = Field(default=0.1, ge=0, alias="lambda")
    """lambda: what a nat of the consistency KL (cr) or a unit of triplet loss (triplet) costs in nats of likelihood."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Fraction of the updates over which lambda grows linearly from 0."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of KL(q(z|x) || p(z)) in the elbo; it does not multiply the consistency term."""
    beta_warmup: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the updates over which the KL to the prior grows linearly from 0 to its full weight."""
    samples: int = Field(default=1, ge=1)
    """K, posterior samples per image; more than 1 needs the bound iwae."""
    margin: float = Field(default=1.0, gt=0)
    """triplet: by how much a stranger's mean must be farther than the copy's, in squared latent units."""

    @model_validator(mode="after")
    def _fits(self) -> ObjectiveSection:
        if self.bound == "elbo" and self.samples != 1:
            raise ValueError("samples > 1 needs objective.bound=iwae")
        if self.bound == "iwae" and self.beta != 1.0:
            raise ValueError("the iwae bound has no beta; leave objective.beta at 1")
        return self

    @property
    def effective_weight(self) -> float:
        """Lambda as the arm uses it."""
        return self.weight if self.arm in ("cr", "triplet") else 0.0

    @property
    def family(self) -> str:
        """What the field calls a model with this bound."""
        if self.bound == "iwae":
            return "iwae"
        return "vae" if self.beta == 1 else "beta-vae"


class TrainingSection(Section):
    """The loop."""

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=64, ge=2)
    """Images per update, over all processes together."""
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    """cosine: the learning rate falls to a hundredth of itself over the run."""
    clip_norm: float = Field(default=1000.0, gt=0)
    """Largest gradient norm; longer gradients are scaled down to it."""
    checkpoint_updates: int = Field(default=0, ge=0)
    """Updates between checkpoints beside the one after each epoch; 0: none beside it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: networks compute in bfloat16, weights and every loss term stay in float32."""
    compile: bool = False
    """Compile encoder and decoder with torch.compile; needs a C++ compiler, pays off in long runs."""
    channels_last: bool = False
    """Keep images and weights in the memory layout that convolutions prefer on most processors."""
    views_together: bool = True
    """Networks take an image and its copy in one batch; false: one after the other, each with its own statistics."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, which then is what the run leaves; 0: none."""
    early_stopping: int = Field(default=0, ge=0)
    """Epochs without a better validation ELBO after which a run ends with its best weights; 0: train to the end."""
    pictures: int = Field(default=0, ge=0)
    """Epochs between grids of reconstructions, samples and traversals in the run's pictures/; 0: none."""
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "tensorboard"
    """Where figures and pictures go beside history.jsonl."""


class Config(Section):
    """One run, complete."""

    name: str = Field(default="vae", pattern=NAME_PATTERN)
    data: DataSection = DataSection()
    seed: int = Field(default=0, ge=0, lt=2**31)
    model: ModelSection = ModelSection()
    likelihood: LikelihoodSection = LikelihoodSection()
    objective: ObjectiveSection = ObjectiveSection()
    transforms: Transforms = ()
    """Semantics-preserving transformations, applied in order, each with parameters drawn per image; or a preset."""
    training: TrainingSection = TrainingSection()

    @model_validator(mode="after")
    def _has_transforms(self) -> Config:
        if self.objective.arm != "base" and not self.transforms:
            raise ValueError(f"objective.arm={self.objective.arm} needs at least one entry in transforms")
        return self

    @classmethod
    def parse(cls, values: dict[str, Any], *, source: str) -> Config:
        """Validate nested values. Raises ConfigError naming `source` and the first wrong key."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise ConfigError(f"{source}: unknown key {where}; known keys: {_siblings(first['loc'])}") from None
            message = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{source}: {where + ': ' if where else ''}{message}") from None

    @classmethod
    def load(cls, recipe: str, settings: list[str] | None = None) -> Config:
        """Read a recipe by name or path (.toml, or the config.json of a run), then apply `key=value` settings.

        A recipe may start from another with `base = "NAME"` and holds only the differences. Raises ConfigError.
        """
        values = _read(recipe)
        for setting in settings or []:
            _apply(values, setting)
        return cls.parse(values, source=recipe)

    def values(self) -> dict[str, Any]:
        """JSON-ready nested values; `parse` reads them back."""
        return self.model_dump(mode="json")


def flatten(values: Any, key: str = "") -> list[tuple[str, Any]]:
    """Nested configuration values as pairs of a dotted key, as in --set, and a plain value."""
    if isinstance(values, dict):
        return [pair for name, each in values.items() for pair in flatten(each, f"{key}.{name}" if key else name)]
    if isinstance(values, list) and any(isinstance(each, dict) for each in values):
        return [pair for index, each in enumerate(values) for pair in flatten(each, f"{key}.{index}")]
    return [(key, str(values) if isinstance(values, list) else values)]


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    return sorted(f.name.removesuffix(".toml") for f in _built_in().iterdir() if f.name.endswith(".toml"))


def _built_in() -> Any:
    return resources.files("isolatent_train") / "recipes"


def _read(recipe: str, derived: tuple[str, ...] = ()) -> dict[str, Any]:
    """Values of a recipe on top of those of its base; `derived` are the recipes that start from it."""
    if recipe.endswith((".toml", ".json")):
        source = Path(recipe)
        if not source.is_file():
            raise ConfigError(f"{recipe}: no such recipe file")
    elif recipe in recipe_names():
        source = _built_in() / f"{recipe}.toml"
    else:
        raise ConfigError(f"{recipe}: no such recipe; built in are {', '.join(recipe_names())}, or give a .toml file")
    try:
        text = source.read_text()
        values: Any = json.loads(text) if recipe.endswith(".json") else tomllib.loads(text)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{recipe}: cannot be read ({error})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{recipe}: no recipe; it must hold settings by name")
    base = values.pop("base", None)
    if base is None:
        return values
    above = str(source.parent / base) if str(base).endswith((".toml", ".json")) else str(base)
    if above in (recipe, *derived):
        raise ConfigError(f"{recipe}: base = {base!r} leads back to itself; name another recipe")
    return _merge(_read(above, (*derived, recipe)), values)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _apply(values: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {setting}: write it as key=value, for example objective.lambda=0.5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # bare words need no quotes
    place: Any = values
    for key in keys[:-1]:
        place = place[_index(place, key, setting)] if isinstance(place, list) else place.setdefault(key, {})
        if not isinstance(place, dict | list):
            raise ConfigError(f"--set {setting}: {key} has no keys of its own")
    place[_index(place, keys[-1], setting) if isinstance(place, list) else keys[-1]] = value


def _index(place: list[Any], key: str, setting: str) -> int:
    if not key.isdecimal() or int(key) >= len(place):
        raise ConfigError(f"--set {setting}: {key} is no entry of a list of {len(place)}, count from 0")
    return int(key)


def _siblings(location: tuple[int | str, ...]) -> str:
    section: type[BaseModel] = Config
    for part in location[:-1]:
        field = section.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return "see docs/training.md"
        section = field.annotation
    return ", ".join(field.alias or name for name, field in section.model_fields.items())
