"""Recipes: typed, closed, changed key by key; every mistake is one line with a remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isolatent_train.config import Config, ConfigError, recipe_names
from isolatent_train.transforms import PRESETS, Affine


@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_loads(name: str) -> None:
    assert Config.load(name).name


def test_settings_change_single_keys() -> None:
    config = Config.load("digits", ["objective.lambda=0.5", "objective.arm=base", "transforms.0.rotation=30"])
    assert config.objective.weight == 0.5
    assert config.objective.arm == "base"
    assert config.transforms == (Affine(rotation=30),)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_and_single_transformations_mix(preset: str) -> None:
    config = Config.load("digits", ["objective.arm=base", f'transforms=["{preset}", {{kind="flip"}}]'])
    assert [each.kind for each in config.transforms] == [*(entry["kind"] for entry in PRESETS[preset]), "flip"]


def test_a_recipe_file_holds_only_the_differences_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "digits"\n[training]\nepochs = 3\n')
    config = Config.load(str(tmp_path / "mine.toml"))
    assert (config.training.epochs, config.training.batch_size) == (3, Config.load("digits").training.batch_size)


def test_a_base_is_found_beside_its_recipe_and_may_not_lead_back(tmp_path: Path) -> None:
    (tmp_path / "first.toml").write_text('base = "digits"\n[training]\nepochs = 3\n')
    (tmp_path / "second.toml").write_text('base = "first.toml"\nseed = 4\n')
    config = Config.load(str(tmp_path / "second.toml"))
    assert (config.training.epochs, config.seed) == (3, 4)
    (tmp_path / "first.toml").write_text('base = "second.toml"\n')
    with pytest.raises(ConfigError, match="leads back to itself"):
        Config.load(str(tmp_path / "second.toml"))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match="settings by name"):
        Config.load(str(tmp_path / "list.json"))


def test_values_read_back_unchanged(tmp_path: Path) -> None:
    config = Config.load("digits", ["seed=5"])
    (tmp_path / "config.json").write_text(json.dumps(config.values()))
    assert Config.load(str(tmp_path / "config.json")) == config


@pytest.mark.parametrize("arm", ["base", "augmentation"])
def test_lambda_counts_only_for_the_arm_cr(arm: str) -> None:
    assert Config.load("digits", [f"objective.arm={arm}"]).objective.effective_weight == 0
    assert Config.load("digits").objective.effective_weight > 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainin.epochs=3", r"unknown key trainin; known keys: name, data, seed"),
        ("objective.gamma=1", r"unknown key objective.gamma; known keys: arm, bound, lambda"),
        ("objective.lambda=-1", r"objective.lambda: Input should be greater than or equal to 0"),
        ("objective.arm=both", r"objective.arm: Input should be 'base', 'augmentation', 'cr' or 'triplet'"),
        ("objective.samples=5", r"samples > 1 needs objective.bound=iwae"),
        ("transforms=shear", r"no preset 'shear'; presets are none, paper, large"),
        ("data.size=0", r"data.size.0: Input should be greater than 0"),
        ("transforms=[]", r"objective.arm=cr needs at least one entry in transforms"),
        ("transforms.3.rotation=1", r"3 is no entry of a list of 1"),
        ("training.epochs", r"write it as key=value"),
        ("name=../escape", r"name: String should match"),
    ],
)
def test_mistakes_are_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.load("digits", [setting])


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="built in are cifar10, clouds, digits"):
        Config.load("digit")
