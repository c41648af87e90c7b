"""Posterior and Model as values."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from numpy.random import default_rng

from isolatent import Model, Posterior


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


def test_bhattacharyya_against_numerical_integration() -> None:
    p, q = posterior(0, d=1), posterior(1, d=1)
    z = np.linspace(-20, 20, 400_001)
    density = [np.exp(-((z - x.mean) ** 2) / (2 * x.variance)) / np.sqrt(2 * np.pi * x.variance) for x in (p, q)]
    overlap = np.trapezoid(np.sqrt(density[0] * density[1]), z)
    assert p.distance(q, "bhattacharyya") == pytest.approx(-np.log(overlap), rel=1e-6)


@pytest.mark.parametrize("kind", ["wasserstein2", "symmetric_kl", "bhattacharyya"])
def test_distances_are_zero_to_itself_and_symmetric(kind) -> None:  # type: ignore[no-untyped-def]
    p, q = posterior(0), posterior(1)
    assert p.distance(p, kind) == pytest.approx(0, abs=1e-12)
    assert p.distance(q, kind) == pytest.approx(q.distance(p, kind))


def test_an_unknown_distance_is_refused() -> None:
    with pytest.raises(ValueError, match="wasserstein2, symmetric_kl and bhattacharyya"):
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
