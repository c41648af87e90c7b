"""The objective is the paper's, whatever bound it is given."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isolatent_export.manifest import ImageInput
from isolatent_train.bounds import ELBO, IWAE, Bound
from isolatent_train.config import ModelSection, ObjectiveSection
from isolatent_train.consistency import Objective, build_objective
from isolatent_train.likelihoods import Bernoulli, DiscretisedLogistic
from isolatent_train.models import VAE, build_model

LIKELIHOOD = Bernoulli(dynamic=True)
BOUNDS: list[Bound] = [ELBO(), ELBO(beta=4.0), IWAE(3)]


@pytest.fixture
def model() -> VAE:
    torch.manual_seed(0)
    spec = ImageInput(height=8, width=8, channels=1)
    return build_model(
        ModelSection(latent=4, channels=(8,)), spec, LIKELIHOOD
    ).eval()  # so BatchNorm does not mix views


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


@pytest.mark.parametrize("bound", BOUNDS)
def test_views_may_go_through_the_network_one_after_the_other(
    model: VAE, views: tuple[Tensor, Tensor], bound: Bound
) -> None:
    loss = Objective(bound, 0.7, together=False)(model, LIKELIHOOD, *views, seeded())
    generator = seeded()
    first, second = (bound(model, LIKELIHOOD, view, generator) for view in views)
    cost = second.posterior.kl(first.posterior).mean()
    torch.testing.assert_close(loss.value, -first.value.mean() - second.value.mean() + 0.7 * cost)
    torch.testing.assert_close(loss.terms["kl"], first.kl.mean())


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


def test_the_triplet_arm_compares_the_copy_with_a_stranger(model: VAE, views: tuple[Tensor, Tensor]) -> None:
    x, x_tilde = views
    objective = build_objective(ObjectiveSection.model_validate({"arm": "triplet", "lambda": 3.0, "margin": 2.0}))
    loss = objective(model, LIKELIHOOD, x, x_tilde, seeded())
    means, moved = model.encode(x).mean, model.encode(x_tilde).mean
    near, far = (means - moved).square().sum(1), (means - means.roll(1, 0)).square().sum(1)
    both = ELBO()(model, LIKELIHOOD, torch.cat(views), seeded()).value
    expected = -both[:5].mean() - both[5:].mean() + 3 * (near - far + 2).clamp(min=0).mean()
    torch.testing.assert_close(loss.value, expected)


@pytest.mark.parametrize("bound", [ELBO(), IWAE(3)])
def test_annealing_away_the_prior_leaves_the_reconstruction(
    model: VAE, views: tuple[Tensor, Tensor], bound: Bound
) -> None:
    plain = bound(model, LIKELIHOOD, views[0], seeded(), annealing=0.0)
    if isinstance(bound, ELBO):
        torch.testing.assert_close(plain.value, plain.reconstruction)
    assert (plain.value >= plain.reconstruction - 1e-4).all()
    assert not torch.allclose(plain.value, bound(model, LIKELIHOOD, views[0], seeded()).value)


def test_the_discretised_logistic_is_a_probability_of_256_levels() -> None:
    likelihood = DiscretisedLogistic()
    outputs = torch.tensor([0.3, -2.5]).view(1, 1, 2, 1, 1).expand(1, 256, -1, 1, 1)
    levels = (torch.arange(256) / 255).view(256, 1, 1, 1)
    assert likelihood.log_prob(outputs, levels).exp().sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("log_scale", [-30.0, -7.0, 0.0, 5.0])
def test_the_discretised_logistic_stays_finite_with_its_gradient(log_scale: float) -> None:
    outputs = torch.tensor([[8.0, log_scale], [-8.0, log_scale]]).view(1, 2, 2, 1, 1).requires_grad_()
    targets = torch.tensor([0.0, 100 / 255]).view(2, 1, 1, 1)
    log_probability = DiscretisedLogistic().log_prob(outputs, targets)
    (gradient,) = torch.autograd.grad(log_probability.sum(), outputs)
    assert torch.isfinite(log_probability).all()
    assert torch.isfinite(gradient).all()
