"""Posterior and Model as values."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from isolatent import Client, Model, Posterior
from isolatent.types import Distance


def posterior(seed: int, d: int = 5, version: str = "1") -> Posterior:
    rng = default_rng(seed)
    return Posterior(rng.normal(size=d), rng.uniform(0.1, 2, d), 1.5, "tiny", version)  # type: ignore[arg-type]


def kl(p: Posterior, q: Posterior) -> float:
    """KL between diagonal Gaussians, from the definition, one dimension after the other."""
    total = 0.0
    for m1, v1, m2, v2 in zip(*(map(float, a) for a in (p.mean, p.variance, q.mean, q.variance)), strict=True):
        total += 0.5 * (np.log(v2 / v1) + (v1 + (m1 - m2) ** 2) / v2 - 1)
    return total


def test_arrays_are_float32_and_read_only() -> None:
    p = posterior(0)
    assert p.mean.dtype == p.variance.dtype == p.std.dtype == np.float32
    with pytest.raises(ValueError):
        p.mean[0] = 1


def test_the_callers_array_stays_writeable_and_apart() -> None:
    mean = np.zeros(2, np.float32)
    p = Posterior(mean, np.ones(2, np.float32), 0.0, "m", "1")
    mean[0] = 5
    assert p.mean[0] == 0


def test_fields_cannot_be_assigned() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        posterior(0).kl = 2.0  # type: ignore[misc]


def test_mean_and_variance_must_be_vectors_of_one_length() -> None:
    with pytest.raises(ValueError, match=r"mean \(2,\) and variance \(3,\)"):
        Posterior(np.zeros(2, np.float32), np.ones(3, np.float32), 0.0, "m", "1")


def test_equality_compares_numbers_model_and_version() -> None:
    assert posterior(0) == posterior(0)
    assert hash(posterior(0)) == hash(posterior(0))
    assert posterior(0) != posterior(1)
    assert posterior(0) != posterior(0, version="2")
    assert posterior(0) != "posterior"


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_are_equal_and_read_only(clone) -> None:  # type: ignore[no-untyped-def]
    twin = clone(posterior(0))
    assert twin == posterior(0)
    assert not twin.mean.flags.writeable


def test_samples_have_the_posteriors_moments() -> None:
    p = posterior(0)
    draws = p.sample(40_000, seed=1)
    assert draws.shape == (40_000, 5)
    assert draws.dtype == np.float32
    np.testing.assert_allclose(draws.mean(0), p.mean, atol=0.03)
    np.testing.assert_allclose(draws.var(0), p.variance, rtol=0.05)


def test_samples_repeat_with_the_seed() -> None:
    p = posterior(0)
    assert np.array_equal(p.sample(3, seed=1), p.sample(3, seed=1))
    assert not np.array_equal(p.sample(3, seed=1), p.sample(3, seed=2))


def test_wasserstein2_against_the_matrix_formula() -> None:
    p, q = posterior(0), posterior(1)
    cp, cq = np.diag(p.variance.astype(float)), np.diag(q.variance.astype(float))
    root = np.sqrt(np.sqrt(cp) @ cq @ np.sqrt(cp))
    expected = np.sqrt(np.sum((p.mean - q.mean).astype(float) ** 2) + np.trace(cp + cq - 2 * root))
    assert p.distance(q) == pytest.approx(expected, rel=1e-6)


def test_symmetric_kl_is_the_mean_of_both_directions() -> None:
    p, q = posterior(0), posterior(1)
    assert p.distance(q, "symmetric_kl") == pytest.approx((kl(p, q) + kl(q, p)) / 2, rel=1e-9)


def density(p: Posterior, z: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return np.exp(-((z - p.mean) ** 2) / (2 * p.variance)) / np.sqrt(2 * np.pi * p.variance)


def test_bhattacharyya_against_numerical_integration() -> None:
    p, q = posterior(0, d=1), posterior(1, d=1)
    z = np.linspace(-20, 20, 400_001)
    overlap = np.trapezoid(np.sqrt(density(p, z) * density(q, z)), z)
    assert p.distance(q, "bhattacharyya") == pytest.approx(-np.log(overlap), rel=1e-6)


def test_symmetric_kl_against_numerical_integration() -> None:
    p, q = posterior(0, d=1), posterior(1, d=1)
    z = np.linspace(-12, 12, 400_001)
    log_ratio = (z - q.mean) ** 2 / (2 * q.variance) - (z - p.mean) ** 2 / (2 * p.variance)
    log_ratio = log_ratio + np.log(q.variance / p.variance) / 2
    expected = np.trapezoid((density(p, z) - density(q, z)) * log_ratio, z) / 2
    assert p.distance(q, "symmetric_kl") == pytest.approx(expected, rel=1e-5)


def test_wasserstein2_against_the_transport_of_sorted_draws() -> None:
    p, q = posterior(0, d=1), posterior(1, d=1)  # on a line, sorted draws are the cheapest pairs
    pairs = [np.sort(each.sample(400_000, seed=7), axis=0).astype(float) for each in (p, q)]
    assert p.distance(q) == pytest.approx(np.sqrt(np.mean((pairs[0] - pairs[1]) ** 2)), rel=1e-2)


def test_kl_of_the_prior_against_draws(client: Client, pngs: list[Path]) -> None:
    p = client.posterior(pngs[0])
    z = p.sample(400_000, seed=3).astype(float)
    log_ratio = np.sum(z**2 / 2 - (z - p.mean) ** 2 / (2 * p.variance) - np.log(p.variance) / 2, axis=1)
    assert p.kl == pytest.approx(log_ratio.mean(), abs=5 * log_ratio.std() / np.sqrt(len(z)))


@pytest.mark.parametrize("metric", ["wasserstein2", "symmetric_kl", "bhattacharyya"])
def test_the_distances_to_many_are_those_to_each(metric: Distance) -> None:
    p, others = posterior(0), [posterior(seed) for seed in range(4)]
    found = p.distance(others, metric)
    assert (found.shape, found.dtype) == ((4,), np.float64)
    np.testing.assert_allclose(found, [p.distance(each, metric) for each in others])
    assert p.distance([], metric).shape == (0,)
    with pytest.raises(ValueError, match="different axes"):
        p.distance([*others, posterior(0, version="2")], metric)


@pytest.mark.parametrize("metric", ["symmetric_kl", "bhattacharyya"])
def test_posteriors_that_nearly_agree_have_a_small_distance_and_not_0(metric: Distance) -> None:
    ones = np.ones(1, np.float32)
    p, q = (Posterior(0 * ones, variance, 0.0, "m", "1") for variance in (ones, ones * np.float32(1 + 2e-7)))
    step = float(q.variance[0]) - 1
    expected = {"symmetric_kl": step**2 / 4, "bhattacharyya": step**2 / 16}[metric]
    assert p.distance(q, metric) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["wasserstein2", "symmetric_kl", "bhattacharyya"])
def test_distances_are_zero_to_itself_and_symmetric(kind) -> None:  # type: ignore[no-untyped-def]
    p, q = posterior(0), posterior(1)
    assert p.distance(p, kind) == pytest.approx(0, abs=1e-12)
    assert p.distance(q, kind) == pytest.approx(q.distance(p, kind))


def test_an_unknown_distance_is_refused() -> None:
    with pytest.raises(ValueError, match="wasserstein2, symmetric_kl, bhattacharyya"):
        posterior(0).distance(posterior(1), "euclid")  # type: ignore[arg-type]


def test_posteriors_of_different_models_have_no_distance() -> None:
    with pytest.raises(ValueError, match="tiny 1 and tiny 2 have different axes"):
        posterior(0).distance(posterior(0, version="2"))


def test_a_model_takes_members_it_does_not_know() -> None:
    facts = {
        "id": "tiny", "version": "1", "modality": "image", "provider": "CPUExecutionProvider", "ready": True,
        "input": {"height": 16}, "latent": {"size": 8}, "something": "new",
    }  # fmt: skip
    model = Model.from_facts(facts)
    assert (model.id, model.latent_size, model.metrics) == ("tiny", 8, {})
    assert model.facts["something"] == "new"
    assert hash(model) == hash(Model.from_facts(dict(facts)))
