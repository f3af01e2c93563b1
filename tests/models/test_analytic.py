"""The mixture against integrals done numerically and statistics of its own samples."""

import math

import pytest
import torch

from ddim_ode.models.analytic import GaussianMixture
from tests.helpers.mixtures import labelled, two_modes
from tests.helpers.tensors import f64, normal

LINE = torch.linspace(-12, 12, 200_001, dtype=torch.float64)


def prior(x: torch.Tensor) -> torch.Tensor:
    """The density of `two_modes`, written out."""
    return sum(
        w / (s * math.sqrt(2 * math.pi)) * torch.exp(-((x - m) ** 2) / (2 * s**2))
        for m, s, w in [(-1.0, 0.2, 0.4), (0.6, 0.3, 0.6)]
    )


def smallest_class() -> GaussianMixture:
    return GaussianMixture(f64([[-1.0], [0.0], [2.0]]), [0.3, 0.2, 0.4], [1.0, 2.0, 3.0], [0, 1, 0])


@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.0])
def test_density_is_the_formula_and_integrates_to_one(sigma):
    density = two_modes().log_density(LINE[:, None], sigma).exp()
    assert float(torch.trapezoid(density, LINE)) == pytest.approx(1, abs=1e-10)
    if sigma == 0:
        torch.testing.assert_close(density, prior(LINE), rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("sigma", [0.1, 0.7])
def test_noisy_density_is_the_convolution(sigma):
    for xbar in [-1.5, 0.0, 0.4, 2.0]:
        kernel = torch.exp(-((xbar - LINE) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
        expected = torch.trapezoid(prior(LINE) * kernel, LINE).log()
        assert float(two_modes().log_density(f64([[xbar]]), sigma)) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_the_density_of_a_label_integrates_to_one(label):
    labels = torch.full((len(LINE),), label)
    density = smallest_class().log_density(LINE[:, None], 0.2, labels).exp()
    assert float(torch.trapezoid(density, LINE)) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("xbar", [-2.0, -1.0, -0.3, 0.0, 0.9, 5.0])
def test_denoising_is_the_mean_of_the_posterior(xbar, sigma):
    log_weight = prior(LINE).clamp_min(1e-300).log() - (xbar - LINE) ** 2 / (2 * sigma**2)
    weight = (log_weight - log_weight.max()).exp()
    expected = float(torch.trapezoid(LINE * weight, LINE) / torch.trapezoid(weight, LINE))
    data, noise = two_modes().denoise(f64([[xbar]]), sigma)
    assert float(data) == pytest.approx(expected, abs=1e-9)
    assert float(noise) == pytest.approx((xbar - expected) / sigma, abs=1e-9 / sigma)


@pytest.mark.parametrize("label", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_the_score_is_minus_noise_over_sigma(sigma, label):
    mixture = labelled()
    labels = None if label is None else torch.full((6,), label)
    xbar = mixture.sample(6, seed=0, sigma=sigma).requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_density(xbar, sigma, labels).sum(), xbar)
    with torch.no_grad():
        data, noise = mixture.denoise(xbar, sigma, labels)
    torch.testing.assert_close(score, -noise / sigma, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(data + sigma * noise, xbar.detach(), rtol=1e-14, atol=1e-14)


def test_a_sigma_and_a_label_for_each_sample():
    mixture = labelled()
    sigma, labels = f64([0.1, 1.0, 10.0, 0.5]), torch.tensor([0, 1, 2, 3])
    xbar = normal(4, 2, 3, seed=0)
    data, noise = mixture.denoise(xbar, sigma, labels)
    density = mixture.log_density(xbar, sigma, labels)
    for i in range(4):
        one = slice(i, i + 1)
        alone = mixture.denoise(xbar[one], float(sigma[i]), labels[one])
        torch.testing.assert_close(data[one], alone[0], rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(noise[one], alone[1], rtol=1e-13, atol=1e-14)
        assert float(density[i]) == pytest.approx(
            float(mixture.log_density(xbar[one], float(sigma[i]), labels[one])), rel=1e-13
        )


@pytest.mark.parametrize("label", [0, 1])
def test_a_label_is_the_mixture_of_its_own_components(label):
    mixture = smallest_class()
    own = [k for k in range(3) if [0, 1, 0][k] == label]
    part = GaussianMixture(mixture.means[own], mixture.stds[own], mixture.weights[own])
    xbar = f64([[-2.0], [0.1], [1.5], [9.0]])
    labels = torch.full((4,), label)
    for got, expected in zip(mixture.denoise(xbar, 0.4, labels), part.denoise(xbar, 0.4), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        mixture.log_density(xbar, 0.4, labels), part.log_density(xbar, 0.4), rtol=1e-12, atol=1e-12
    )


def test_no_label_is_the_null_class():
    mixture = smallest_class()
    assert mixture.num_classes == 2
    xbar = f64([[-2.0], [0.1], [1.5]])
    for got, expected in zip(
        mixture.denoise(xbar, 0.4, torch.tensor([2, 2, 2])), mixture.denoise(xbar, 0.4), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_samples_have_the_mean_and_covariance_of_the_mixture(sigma):
    # The seed is fixed; six standard errors leave room for another generator.
    n = 40_000
    means = f64([[1.0, -1.0], [-2.0, 0.5], [0.0, 3.0]])
    stds, weights = [0.3, 0.6, 0.1], [0.2, 0.5, 0.3]
    x = GaussianMixture(means, stds, weights).sample(n, seed=3, sigma=sigma)
    mean = sum(w * m for w, m in zip(weights, means, strict=True))
    covariance = sum(
        w * ((s**2 + sigma**2) * torch.eye(2, dtype=torch.float64) + torch.outer(m - mean, m - mean))
        for w, m, s in zip(weights, means, stds, strict=True)
    )
    standard_error = (covariance.diagonal() / n).sqrt()
    assert ((x.mean(0) - mean).abs() < 6 * standard_error).all()
    products = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    assert ((products.mean(0) - covariance).abs() < 6 * products.std(0) / math.sqrt(n)).all()


def test_samples_follow_their_seed():
    mixture = labelled()
    assert torch.equal(mixture.sample(5, seed=1), mixture.sample(5, seed=1))
    assert not torch.equal(mixture.sample(5, seed=1), mixture.sample(5, seed=2))
    assert mixture.sample(5, seed=1).shape == (5, 2, 3)


def test_far_away_it_neither_overflows_nor_forgets_the_nearest_component():
    data, noise = two_modes().denoise(f64([[1e4], [-1e4]]), 0.1)
    # One component is left: data = m + (xbar - m) s^2 / (s^2 + sigma^2), the wider of the two, whose tail wins.
    torch.testing.assert_close(data, 0.6 + (f64([[1e4], [-1e4]]) - 0.6) * 0.09 / 0.1, rtol=1e-12, atol=0)
    torch.testing.assert_close(data + 0.1 * noise, f64([[1e4], [-1e4]]), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stds": [0.1, 0.2]}, "stds has 2 entries for 3 means"),
        ({"weights": [1.0]}, "weights has 1 entries for 3 means"),
        ({"labels": [0, 1]}, "labels has 2 entries for 3 means"),
        ({"stds": 0.0}, "must be positive"),
        ({"stds": [0.1, -0.1, 0.1]}, "must be positive"),
        ({"weights": [1.0, 0.0, 1.0]}, "must be positive"),
        ({"labels": [0, 2, 2]}, "label"),  # class 1 would have no component, and no density
    ],
)
def test_arguments_that_make_no_mixture_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**({"means": torch.zeros(3, 2), "stds": 0.1} | arguments))
