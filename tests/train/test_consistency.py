"""The objective is the paper's, whatever bound it is given."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isolatent_train.bounds import ELBO, IWAE, Bound
from isolatent_train.config import ObjectiveSection
from isolatent_train.consistency import Objective, build_objective
from isolatent_train.likelihoods import Bernoulli
from isolatent_train.models import VAE

LIKELIHOOD = Bernoulli(dynamic=True)
BOUNDS: list[Bound] = [ELBO(), ELBO(beta=4.0), IWAE(3)]


@pytest.fixture
def model() -> VAE:
    torch.manual_seed(0)
    return VAE((8, 8, 1), latent=4, channels=(8,)).eval()  # eval: BatchNorm does not mix the views


@pytest.fixture
def views() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(2, 5, 1, 8, 8, generator=generator).round()
    return x, y


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(9)


@pytest.mark.parametrize("bound", BOUNDS)
def test_loss_is_both_bounds_plus_lambda_times_the_kl(model: VAE, views: tuple[Tensor, Tensor], bound: Bound) -> None:
    x, x_tilde = views
    loss = Objective(bound, 0.7)(model, LIKELIHOOD, x, x_tilde, seeded())
    together = bound(model, LIKELIHOOD, torch.cat([x, x_tilde]), seeded()).value
    kl = model.encode(x_tilde).kl(model.encode(x))  # the transformed posterior comes first
    torch.testing.assert_close(loss.value, -together[:5].mean() - together[5:].mean() + 0.7 * kl.mean())
    torch.testing.assert_close(loss.terms["consistency"], kl.mean())


def test_base_arm_is_the_bound_alone(model: VAE, views: tuple[Tensor, Tensor]) -> None:
    loss = Objective(ELBO(), 0.0)(model, LIKELIHOOD, views[0], None, seeded())
    torch.testing.assert_close(loss.value, -ELBO()(model, LIKELIHOOD, views[0], seeded()).value.mean())


def test_augmentation_arm_measures_consistency_without_optimising_it(model: VAE, views: tuple[Tensor, Tensor]) -> None:
    loss = build_objective(ObjectiveSection(arm="augmentation"))(model, LIKELIHOOD, *views, seeded())
    both = ELBO()(model, LIKELIHOOD, torch.cat(views), seeded()).value
    torch.testing.assert_close(loss.value, -both[:5].mean() - both[5:].mean())
    assert loss.terms["consistency"] > 0


def test_gradients_flow_through_both_sides_of_the_kl(model: VAE, views: tuple[Tensor, Tensor]) -> None:
    first, second = (model.encode(view) for view in views)
    gradients = torch.autograd.grad(second.kl(first).mean(), [first.mean, second.mean])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_warmup_scales_lambda_and_nothing_else(model: VAE, views: tuple[Tensor, Tensor]) -> None:
    objective = Objective(ELBO(), 2.0)
    whole, half, none = (objective(model, LIKELIHOOD, *views, seeded(), warmup=w).value for w in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, (whole + none) / 2)


def test_beta_weighs_the_kl_to_the_prior(model: VAE, views: tuple[Tensor, Tensor]) -> None:
    evidence = ELBO(beta=4.0)(model, LIKELIHOOD, views[0], seeded())
    torch.testing.assert_close(evidence.value, evidence.reconstruction - 4 * evidence.kl)


def test_iwae_is_never_looser_than_the_mean_elbo_of_its_samples(model: VAE, views: tuple[Tensor, Tensor]) -> None:
    one = torch.stack([IWAE(1)(model, LIKELIHOOD, views[0], torch.Generator().manual_seed(i)).value for i in range(50)])
    many = IWAE(200)(model, LIKELIHOOD, views[0], seeded()).value
    assert (many > one.mean(0)).all()


def test_likelihood_is_a_normalised_sum_over_pixels() -> None:
    logits = torch.full((1, 2, 1, 8, 8), 0.0)
    targets = torch.ones(2, 1, 8, 8)
    torch.testing.assert_close(LIKELIHOOD.log_prob(logits, targets), torch.full((1, 2), -64 * math.log(2)))


def test_dynamic_binarisation_draws_anew_with_the_grey_levels_as_probabilities() -> None:
    grey, generator = torch.full((1, 1, 100, 100), 0.3), seeded()
    first, second = LIKELIHOOD.targets(grey, generator), LIKELIHOOD.targets(grey, generator)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    assert first.mean().item() == pytest.approx(0.3, abs=0.02)


def test_the_expected_likelihood_is_the_mean_over_binarisations() -> None:
    grey, logits = torch.rand(1, 1, 8, 8, generator=seeded()), torch.randn(1, 1, 1, 8, 8, generator=seeded())
    expected = Bernoulli(dynamic=False)
    draws = expected.observe(grey.expand(20_000, -1, -1, -1), seeded())
    mean = expected.log_prob(logits.expand(1, 20_000, -1, -1, -1), draws).mean()
    assert expected.targets(grey, seeded()) is grey
    assert expected.log_prob(logits, grey).item() == pytest.approx(mean.item(), abs=0.1)
