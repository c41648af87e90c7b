"""Metrics against cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from isolatent_train.codecs import Pixels
from isolatent_train.evaluation.consistency import consistency, found
from isolatent_train.evaluation.displacements import KINDS
from isolatent_train.evaluation.encoding import batch_size, posteriors
from isolatent_train.evaluation.information import active_units, log_mixture, mutual_information
from isolatent_train.evaluation.likelihood import negative_log_likelihood
from isolatent_train.evaluation.probe import linear_probe
from isolatent_train.evaluation.strengths import consistency_by_strength, movements
from isolatent_train.posterior import DiagonalGaussian
from isolatent_train.transforms import Affine


def gaussian(count: int = 40, latent: int = 4, *, seed: int = 0) -> DiagonalGaussian:
    return DiagonalGaussian(*torch.randn(2, count, latent, generator=torch.Generator().manual_seed(seed)))


class LinearGaussian(nn.Module):
    """z ~ N(0, I), x|z ~ N(W z, I): the true log p(x) is known; q(z|x) is off on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]])

    def encode(self, images: Tensor) -> DiagonalGaussian:
        mean = 0.4 * images.flatten(1) @ self.weight
        return DiagonalGaussian(mean, torch.full_like(mean, -0.2))

    def decode(self, latents: Tensor) -> Tensor:
        return (latents @ self.weight.T)[:, None, None, :]


class UnitGaussian:
    """p(x|z) = N(x; output, I)."""

    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -0.5 * ((outputs - targets).square() + math.log(2 * math.pi)).flatten(2).sum(2)


class CentreOfMass(nn.Module):
    """Encodes an image as where its ink is: (right, down) in -1..1, with a fixed variance."""

    codec = Pixels()

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, images: Tensor) -> DiagonalGaussian:
        side = images.shape[3]
        axis = torch.linspace(-1 + 1 / side, 1 - 1 / side, side)
        total = images.sum((1, 2, 3)) + 1e-9
        right, down = (images.sum((1, dim)) @ axis / total for dim in (2, 3))
        mean = torch.stack([right, down], 1) * self.scale
        return DiagonalGaussian(mean, torch.full_like(mean, -4))


def test_importance_sampling_finds_the_true_likelihood() -> None:
    model, targets = LinearGaussian(), torch.randn(8, 1, 1, 3, generator=torch.Generator().manual_seed(0))
    done: list[int] = []
    estimate = negative_log_likelihood(
        model,  # type: ignore[arg-type]
        UnitGaussian(),  # type: ignore[arg-type]
        model.encode(targets),
        targets,
        samples=20_000,
        generator=torch.Generator().manual_seed(1),
        on_inputs=done.append,
    )
    covariance = model.weight @ model.weight.T + torch.eye(3)
    true = -MultivariateNormal(torch.zeros(3), covariance).log_prob(targets.flatten(1))
    torch.testing.assert_close(estimate, true, atol=0.05, rtol=0)
    assert sum(done) == 8


def test_mutual_information_of_perfectly_told_apart_inputs_is_log_n() -> None:
    means = 100.0 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    told = mutual_information(DiagonalGaussian(means, torch.full_like(means, -4)), torch.Generator().manual_seed(0))
    assert told == pytest.approx(math.log(50), abs=1e-3)


def test_mutual_information_of_a_collapsed_posterior_is_zero() -> None:
    prior = DiagonalGaussian(torch.zeros(50, 3), torch.zeros(50, 3))
    assert mutual_information(prior, torch.Generator().manual_seed(0)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("offset", "log_variance"), [(0.0, 0.0), (300.0, -8.0), (0.0, -20.0)])
def test_the_expanded_mixture_density_is_the_direct_one(offset: float, log_variance: float) -> None:
    q = gaussian(latent=6)
    q = DiagonalGaussian(q.mean + offset, q.log_variance + log_variance)
    latents = q.sample(torch.Generator().manual_seed(1))
    wide = DiagonalGaussian(q.mean.double(), q.log_variance.double())
    direct = wide.log_prob(latents.double()[:, None, :]).logsumexp(1) - math.log(40)
    torch.testing.assert_close(log_mixture(q, latents), direct, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(log_mixture(q, latents, rows=7), log_mixture(q, latents))


def test_active_units_counts_means_that_vary() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(1000, 3, generator=generator) * torch.tensor([1.0, 0.2, 0.05])
    assert active_units(means) == 2
    assert active_units(means[:1]) is None


def test_unmoved_posteriors_are_perfectly_consistent() -> None:
    q = gaussian()
    result = consistency(q, [q, q])
    assert result["consistency_kl"] == result["consistency_w2_normalized"] == 0
    assert result["retrieval_top1"] == 1


def test_normalised_consistency_does_not_change_when_the_latent_space_shrinks() -> None:
    means, moved = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(0))
    flat = torch.zeros(40, 4)
    wide = consistency(DiagonalGaussian(means, flat), [DiagonalGaussian(moved, flat)])
    narrow = consistency(DiagonalGaussian(means / 9, flat), [DiagonalGaussian(moved / 9, flat)])
    assert narrow["consistency_kl"] == pytest.approx(wide["consistency_kl"] / 81, rel=1e-4)
    assert narrow["consistency_kl_normalized"] == pytest.approx(wide["consistency_kl_normalized"], rel=1e-4)


def test_consistency_of_a_collapsed_encoder_is_no_number_rather_than_perfect() -> None:
    prior = DiagonalGaussian(torch.zeros(8, 3), torch.zeros(8, 3))
    assert math.isnan(consistency(prior, [prior])["consistency_kl_normalized"])


def test_retrieval_in_chunks_is_retrieval() -> None:
    original, copy = gaussian(), gaussian(seed=1)
    mixed = DiagonalGaussian(0.7 * original.mean + 0.3 * copy.mean, copy.log_variance)
    assert torch.equal(found(mixed, original, rows=7), found(mixed, original))
    assert 0 < found(mixed, original).mean() < 1


def test_retrieval_finds_its_own_far_from_the_origin() -> None:
    close = gaussian(400)
    far = DiagonalGaussian(100 + 0.01 * close.mean, close.log_variance)
    assert found(far, far).mean() == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((28, 28, 1), 1024), ((64, 64, 3), 1024), ((128, 128, 3), 256), ((512, 512, 3), 16), ((4096, 4096, 3), 1)],
)
def test_large_images_are_encoded_fewer_at_a_time(shape: tuple[int, ...], expected: int) -> None:
    assert batch_size(torch.empty(2, *shape, device="meta")) == expected


def test_posteriors_in_batches_are_the_posteriors() -> None:
    pixels = torch.randint(0, 256, (10, 9, 9, 1), dtype=torch.uint8)
    whole, parts = (posteriors(CentreOfMass(), pixels, batch=batch) for batch in (10, 3))  # type: ignore[arg-type]
    torch.testing.assert_close(parts.mean, whole.mean)


def test_movement_grows_with_the_known_shift_of_each_strength() -> None:
    pixels = torch.zeros(2, 40, 40, 1, dtype=torch.uint8)
    pixels[0, 18:22, 12:16], pixels[1, 18:22, 24:28] = 255, 255
    moved = movements(CentreOfMass(), pixels, KINDS["image"]["translation"], (0.05, 0.1))  # type: ignore[arg-type]
    # Means move by twice the fraction of the side (the axis is -1..1); KL = shift^2 / (2 variance), log-variance -4.
    expected = [(2 * strength) ** 2 / 2 * math.exp(4) for strength in (0.05, 0.1)]
    torch.testing.assert_close(torch.stack([each.kl[0] for each in moved]), torch.tensor(expected), rtol=1e-3, atol=0)
    assert [float(each.found.mean()) for each in moved] == [1, 1]


@pytest.mark.parametrize(("modality", "name"), [(modality, name) for modality in KINDS for name in KINDS[modality]])
def test_a_displacement_of_zero_changes_nothing_and_any_other_something(modality: str, name: str) -> None:
    inputs = torch.rand(2, 3, 12, 9) if modality == "image" else torch.randn(2, 30, 3)
    kind = KINDS[modality][name]
    torch.testing.assert_close(kind.move(inputs, 0.0, (1, 0), ()), inputs, atol=1e-5, rtol=0)
    assert not torch.allclose(kind.move(inputs, kind.strengths[-1], (1, 0), ()), inputs, atol=0.05)


def test_curves_use_the_padding_of_the_models_own_transformation() -> None:
    pixels = torch.full((4, 20, 20, 1), 255, dtype=torch.uint8)  # all ink: the edges decide
    edge = consistency_by_strength(CentreOfMass(), pixels, (Affine(padding="edge"),))  # type: ignore[arg-type]
    zeros = consistency_by_strength(CentreOfMass(), pixels, ())  # type: ignore[arg-type]
    assert max(edge["translation"]["kl"]) == pytest.approx(0, abs=1e-6)
    assert max(zeros["translation"]["kl"]) > 0.1


def test_probe_reads_a_linear_rule_and_not_noise() -> None:
    features = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
    rule, noise = (features[:, 0] > 0).astype(int), np.random.default_rng(1).integers(0, 2, 600)
    accuracy = linear_probe((features[:400], rule[:400]), (features[400:], rule[400:])).accuracy
    chance = linear_probe((features[:400], noise[:400]), (features[400:], noise[400:])).accuracy
    assert accuracy is not None
    assert chance is not None
    assert accuracy > 0.95
    assert chance < 0.65


def test_probe_takes_labels_in_any_order_and_at_most_its_limit() -> None:
    features = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(int)
    order = labels.argsort()  # as in a folder per class: the last fifth is all of one class
    probe = linear_probe((features[order], labels[order]), (features, labels), limit=200)
    assert probe.examples == 200
    assert probe.accuracy is not None
    assert probe.accuracy > 0.8  # by chance: 0.5


def test_probe_without_a_second_class_says_so() -> None:
    one = (np.zeros((5, 2), np.float32), np.zeros(5, int))
    probe = linear_probe(one, one)
    assert probe.accuracy is None
    assert probe.note is not None
    assert "one class" in probe.note


def test_probe_of_features_that_are_no_numbers_says_so() -> None:
    part = (np.full((10, 2), np.nan, np.float32), np.arange(10) % 2)
    probe = linear_probe(part, part)
    assert probe.accuracy is None
    assert probe.note is not None
    assert "not all finite" in probe.note


def test_probe_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isolatent_train.evaluation.probe.ITERATIONS", 1)
    features = np.random.default_rng(0).normal(size=(100, 20)).astype(np.float32)
    probe = linear_probe((features, (features[:, 0] > 0).astype(int)), (features, (features[:, 0] > 0).astype(int)))
    assert probe.note is not None
    assert "did not converge" in probe.note
