"""Several seeds as one column: which runs belong together, and mean, deviation and confidence interval over them."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import t as student_t

from isolatent_train.config import Config, flatten

CONFIDENCE = 0.95

NOT_RESULTS = ("name", "seed", "training.checkpoint_updates", "training.pictures", "training.tracker")
"""Settings that runs of one column may differ in."""

LABEL_SETTINGS = 3
"""Differing settings that a column's label names at most."""


@dataclass(frozen=True)
class Summary:
    """A figure over n seeds; the interval is that of the mean, by Student's t. One seed has neither it nor a std."""

    mean: float
    n: int
    std: float | None = None
    low: float | None = None
    high: float | None = None

    def values(self) -> dict[str, Any]:
        """JSON-ready: mean, std, ci95 (low, high), n."""
        interval = None if self.low is None else [self.low, self.high]
        return {"mean": self.mean, "std": self.std, "ci95": interval, "n": self.n}


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation (n - 1) and 95 % confidence interval of the mean of at least one value."""
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Summary(mean, n)
    std = statistics.stdev(values)
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n)
    return Summary(mean, n, std, mean - half, mean + half)


def summarize_metrics(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Summary | None]:
    """A summary per numeric metric, over the evaluations that have it; None where none has."""
    names = {name: None for each in evaluations for name, value in each.items() if _is_number(value) or value is None}
    found = {name: [float(each[name]) for each in evaluations if each.get(name) is not None] for name in names}
    return {name: summarize(values) if values else None for name, values in found.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed: one column."""

    label: str
    paths: tuple[str, ...]
    """Where the runs are, as given."""
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    """Configuration by dotted key, without those of NOT_RESULTS."""

    def facts(self) -> dict[str, Any]:
        """JSON-ready label, paths and seeds."""
        facts = asdict(self)
        del facts["settings"]
        return facts


def group_runs(runs: Mapping[str, Config]) -> list[Group]:
    """Sort runs, given as path -> configuration, into columns, in the order given.

    A seed occurs once per column: a run and a bundle made of it are no two seeds, and make two columns.
    """
    keys: dict[str, tuple[Any, ...]] = {}
    seen: Counter[tuple[Any, ...]] = Counter()
    for path, config in runs.items():
        settings = tuple(flat_settings(config).items())
        keys[path] = (settings, seen[settings, config.seed])
        seen[settings, config.seed] += 1
    members = {key: [path for path in runs if keys[path] == key] for key in dict.fromkeys(keys.values())}
    labels = _labels([[runs[path] for path in paths] for paths in members.values()])
    return [
        Group(
            label if labels.count(label) == 1 else f"{label} ({paths[0]})",
            tuple(paths),
            tuple(runs[path].seed for path in paths),
            flat_settings(runs[paths[0]]),
        )
        for label, paths in zip(labels, members.values(), strict=True)
    ]


def flat_settings(config: Config) -> dict[str, Any]:
    """The configuration by dotted key, lists of numbers as text, without those of NOT_RESULTS."""
    values = config.values()
    return {key: value for key, value in flatten(values) if key not in NOT_RESULTS}


def differing(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Settings that are not the same in all groups: one value per group, None where a group has none."""
    keys = dict.fromkeys(key for group in groups for key in group.settings)
    rows = {key: [group.settings.get(key) for group in groups] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _labels(columns: list[list[Config]]) -> list[str]:
    """Names where they tell the columns apart, otherwise the settings that do."""
    names = [{config.name for config in column} for column in columns]
    told = [next(iter(each)) for each in names if len(each) == 1]
    if len(told) == len(set(told)) == len(columns):
        return told
    arms = [column[0].objective.arm for column in columns]
    settings = [flat_settings(column[0]) for column in columns]
    keys = [key for key in dict.fromkeys(k for s in settings for k in s) if len({s.get(key) for s in settings}) > 1]
    shown = [key for key in keys if key != "objective.arm"]
    labels = []
    for arm, values in zip(arms, settings, strict=True):
        parts = [f"{key.rpartition('.')[2]}={values.get(key, '-')}" for key in shown[:LABEL_SETTINGS]]
        labels.append(" ".join([arm, *parts, *(["…"] if len(shown) > LABEL_SETTINGS else [])]))
    return labels
