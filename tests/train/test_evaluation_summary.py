"""Seeds into columns, and columns into mean, deviation and interval."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from isolatent_train.config import Config
from isolatent_train.evaluation.summary import differing, group_runs, summarize, summarize_metrics
from isolatent_train.tables import ROWS, metrics_table


def config(*settings: str) -> Config:
    return Config.load("digits", list(settings))


def test_the_interval_is_students() -> None:
    values = [92.1, 92.9, 91.4, 93.0]
    summary = summarize(values)
    low, high = stats.t.interval(0.95, 3, loc=summary.mean, scale=stats.sem(values))
    assert (summary.low, summary.high) == (pytest.approx(low), pytest.approx(high))


def test_the_interval_of_two_seeds_by_hand() -> None:
    summary = summarize([1.0, 3.0])
    half = 12.706204736 * math.sqrt(2) / math.sqrt(2)  # t of 1 degree of freedom, standard deviation sqrt 2
    assert summary.values() == {
        "mean": 2.0,
        "std": pytest.approx(math.sqrt(2)),
        "ci95": [pytest.approx(2 - half), pytest.approx(2 + half)],
        "n": 2,
    }


def test_one_seed_has_no_interval() -> None:
    assert summarize([5.0]).values() == {"mean": 5.0, "std": None, "ci95": None, "n": 1}


def test_figures_that_some_seeds_lack_are_counted_without_them() -> None:
    summaries = summarize_metrics([{"a": 1.0, "b": None, "note": "x"}, {"a": None, "b": None}])
    assert summaries["a"] is not None
    assert summaries["a"].n == 1
    assert summaries["b"] is None
    assert "note" not in summaries


def test_runs_that_differ_in_seed_and_name_make_one_column() -> None:
    runs = {f"r{seed}": config(f"seed={seed}", f"name=x{seed}") for seed in (0, 1, 2)}
    (group,) = group_runs(runs)
    assert group.paths == ("r0", "r1", "r2")
    assert group.seeds == (0, 1, 2)
    assert group.label == "cr"


def test_columns_are_called_by_name_where_names_tell_them_apart() -> None:
    runs = {"a": config("name=plain", "objective.arm=base"), "b": config("name=steady")}
    assert [group.label for group in group_runs(runs)] == ["plain", "steady"]


def test_columns_are_called_by_what_differs_where_names_do_not() -> None:
    runs = {"a": config("objective.lambda=1"), "b": config("objective.lambda=5"), "c": config("objective.arm=base")}
    assert [group.label for group in group_runs(runs)] == ["cr lambda=1.0", "cr lambda=5.0", "base lambda=5.0"]
    assert differing(group_runs(runs)) == {
        "objective.arm": ["cr", "cr", "base"],
        "objective.lambda": [1.0, 5.0, 5.0],
    }


def test_the_same_seed_twice_makes_two_columns() -> None:
    groups = group_runs({"run": config(), "bundle": config(), "run1": config("seed=1")})
    assert [group.paths for group in groups] == [("run", "run1"), ("bundle",)]
    assert len({group.label for group in groups}) == 2


def test_table_shows_mean_deviation_and_interval_over_seeds() -> None:
    metrics = dict.fromkeys(ROWS, 0.5)
    table = metrics_table({"cr": [metrics, metrics | {"probe_accuracy": 0.7}, metrics | {"probe_accuracy": 0.6}]})
    assert "| linear probe, %                    | 60.0 ± 10.0 [35.2, 84.8]" in table


def test_table_shows_a_dash_for_what_is_not_known() -> None:
    table = metrics_table({"base": [dict.fromkeys(ROWS, 0.5) | {"probe_accuracy": None}]})
    assert "| linear probe, %                    | -      |" in table
