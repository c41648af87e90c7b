"""The closed forms against torch.distributions and against Monte Carlo."""

from __future__ import annotations

import torch
from torch.distributions import Independent, Normal, kl_divergence

from isolatent_train.posterior import DiagonalGaussian


def gaussian(seed: int, shape: tuple[int, ...] = (4, 6)) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(seed)
    return DiagonalGaussian(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator))


def distribution(q: DiagonalGaussian) -> Independent:
    return Independent(Normal(q.mean, q.std), 1)


def test_consistency_kl_agrees_with_torch_distributions() -> None:
    p, q = gaussian(1), gaussian(2)
    torch.testing.assert_close(p.kl(q), kl_divergence(distribution(p), distribution(q)))


def test_consistency_kl_agrees_with_monte_carlo() -> None:
    p, q = gaussian(1), gaussian(2)
    latents = p.sample(torch.Generator().manual_seed(0), 200_000)
    estimate = (p.log_prob(latents) - q.log_prob(latents)).mean(0)
    torch.testing.assert_close(p.kl(q), estimate, rtol=0.01, atol=0.05)


def test_kl_to_the_prior_is_the_kl_to_a_standard_normal() -> None:
    q = gaussian(3)
    prior = DiagonalGaussian(torch.zeros(4, 6), torch.zeros(4, 6))
    torch.testing.assert_close(q.kl(), q.kl(prior))


def test_kl_is_not_symmetric_and_zero_to_itself() -> None:
    p, q = gaussian(1), gaussian(2)
    assert not torch.allclose(p.kl(q), q.kl(p))
    torch.testing.assert_close(p.kl(p), torch.zeros(4))


def test_log_prob_agrees_with_torch_distributions() -> None:
    q, latents = gaussian(1), torch.randn(3, 4, 6)
    torch.testing.assert_close(q.log_prob(latents), distribution(q).log_prob(latents))


def test_samples_are_a_function_of_the_generator_and_have_the_right_moments() -> None:
    q = gaussian(1)
    draws = q.sample(torch.Generator().manual_seed(5), 100_000)
    assert torch.equal(draws, q.sample(torch.Generator().manual_seed(5), 100_000))
    torch.testing.assert_close(draws.mean(0), q.mode(), rtol=0, atol=0.03)
    torch.testing.assert_close(draws.var(0), q.variance, rtol=0.03, atol=0)


def test_wasserstein_of_shifted_gaussians_is_the_squared_shift() -> None:
    q = gaussian(1)
    moved = DiagonalGaussian(q.mean + 2, q.log_variance)
    torch.testing.assert_close(q.wasserstein2(moved), torch.full((4,), 24.0))
