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

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from isolatent_export.manifest import NAME_PATTERN
from isolatent_train.transforms import Transform


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and the remedy."""


class Section(BaseModel):
    """Base of every section: immutable, closed, written with the names used in recipes."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


class ModelSection(Section):
    """The network."""

    family: Literal["vae"] = "vae"
    latent: int = Field(default=16, ge=1, le=4096)
    """Number of latent variables d."""
    channels: tuple[int, ...] = Field(default=(32, 64), min_length=1, max_length=8)
    """Channels of the stride-2 convolutions, first to last; the decoder mirrors them."""


class LikelihoodSection(Section):
    """p(x|z) of the pixels."""

    kind: Literal["bernoulli"] = "bernoulli"
    binarize: Literal["dynamic", "expected"] = "dynamic"
    """Grey levels are probabilities of binary pixels. dynamic: pixels are drawn at each update, encoded and
    reconstructed; expected: the grey image is encoded, as a service does, and the expected log-likelihood over its
    binary pixels is reconstructed."""


class ObjectiveSection(Section):
    """What is optimised (Sinha & Dieng 2021, eq. 5)."""

    arm: Literal["base", "augmentation", "cr"] = "cr"
    """base: L(x); augmentation: L(x) + L(x~); cr: the same minus lambda KL(q(z|x~) || q(z|x))."""
    bound: Literal["elbo", "iwae"] = "elbo"
    consistency_weight: float = Field(default=0.1, ge=0, alias="lambda")
    """lambda, per nat of the consistency KL (summed over latent dimensions, averaged over the batch)."""
    consistency_warmup: float = Field(default=0.1, ge=0, le=1)
    """Fraction of the updates over which lambda grows linearly from 0."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of KL(q(z|x) || p(z)) in the elbo; it does not multiply the consistency term."""
    samples: int = Field(default=1, ge=1)
    """K, posterior samples per image; more than 1 needs the bound iwae."""

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
        return self.consistency_weight if self.arm == "cr" else 0.0


class TrainingSection(Section):
    """The loop."""

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    """cosine: the learning rate falls to a hundredth of itself over the run."""
    clip_norm: float = Field(default=1000.0, gt=0)
    """Largest gradient norm; longer gradients are scaled down to it."""
    checkpoint_updates: int = Field(default=0, ge=0)
    """Updates between checkpoints beside the one after each epoch; 0: none beside it."""


class Config(Section):
    """One run, complete."""

    name: str = Field(default="vae", pattern=NAME_PATTERN)
    data: str = "digits"
    """A data specification: see `isolatent train --help`."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    model: ModelSection = ModelSection()
    likelihood: LikelihoodSection = LikelihoodSection()
    objective: ObjectiveSection = ObjectiveSection()
    transforms: tuple[Transform, ...] = ()
    """Semantics-preserving transformations, applied in order, each with parameters drawn per image."""
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


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    return sorted(f.name.removesuffix(".toml") for f in _built_in().iterdir() if f.name.endswith(".toml"))


def _built_in() -> Any:
    return resources.files("isolatent_train") / "recipes"


def _read(recipe: str) -> dict[str, Any]:
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
        values: dict[str, Any] = json.loads(text) if recipe.endswith(".json") else tomllib.loads(text)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{recipe}: cannot be read ({error})") from None
    base = values.pop("base", None)
    return _merge(_read(str(base)), values) if base is not None else values


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
