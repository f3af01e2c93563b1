"""Gaussian fields against dense linear algebra, derivatives and their own statistics."""

import math

import pytest
import torch

from ddim_ode import paths, sample
from ddim_ode.errors import DDIMError
from ddim_ode.models.fields import GaussianField, cosines
from ddim_ode.planning.inputs import seeded_noise
from tests.helpers.assertions import one_line
from tests.helpers.tensors import f64, normal

SHAPE = (3, 4, 6)
SINGLE = GaussianField(SHAPE, std=0.4)
MIXED = GaussianField(SHAPE, std=0.3, means=normal(3, *SHAPE, seed=1), weights=f64([1, 2, 3]))


def covariance(field: GaussianField) -> torch.Tensor:
    """Of all numbers of an image, from the images of the basis."""
    size = math.prod(field.shape)
    basis = field.image(torch.eye(size, dtype=torch.float64).reshape(size, *field.shape)).flatten(1)
    return basis.T @ (field.spectrum.flatten()[:, None] * basis)


@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_the_cosines_are_orthonormal(n):
    torch.testing.assert_close(cosines(n) @ cosines(n).T, torch.eye(n).double(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [SHAPE, (1, 5, 3), (4, 2, 2)])
def test_coefficients_turn_into_the_image_again(shape):
    field, x = GaussianField(shape), normal(2, *shape, seed=0)
    torch.testing.assert_close(field.image(field.coefficients(x)), x, rtol=0, atol=1e-13)
    assert float(field.coefficients(x).norm()) == pytest.approx(float(x.norm()))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 64, 32), (3, 128, 128)])
def test_pixels_have_the_standard_deviation_at_any_size(shape):
    field = GaussianField(shape, std=0.4)
    assert float(field.spectrum.mean()) == pytest.approx(0.16)
    x = field.sample(60, seed=0)
    assert float(x.std()) == pytest.approx(0.4, rel=0.1)


def test_the_power_falls_with_the_frequency_and_colour_is_weaker():
    spectrum = GaussianField((3, 64, 64), power=2.0).spectrum
    along = spectrum[0, 0]
    assert float(along[40] / along[20]) == pytest.approx(1 / 4, rel=0.01)
    assert float(spectrum[0].sum() / spectrum.sum()) == pytest.approx(0.9)
    grey = SINGLE.image(torch.nn.functional.one_hot(torch.tensor([0]), math.prod(SHAPE)).double().reshape(1, *SHAPE))
    assert float(grey.std()) == pytest.approx(0, abs=1e-12)  # the first is brightness


@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.0, 30.0])
def test_denoising_is_the_mean_of_the_posterior(sigma):
    x, c = normal(2, *SHAPE, seed=0), covariance(SINGLE)
    expected = (c @ torch.linalg.solve(c + sigma**2 * torch.eye(len(c)).double(), x.flatten(1).T)).T.reshape(x.shape)
    data, noise = SINGLE.denoise(x, sigma)
    torch.testing.assert_close(data, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(data + sigma * noise, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("field", [SINGLE, MIXED])
def test_the_density_is_that_of_normal_distributions(field):
    x, c, sigma = normal(4, *SHAPE, seed=0), covariance(field), 0.5
    each = [
        torch.distributions.MultivariateNormal(m.flatten(), c + sigma**2 * torch.eye(len(c)).double()).log_prob(
            x.flatten(1)
        )
        for m in field.means
    ]
    expected = torch.logsumexp(torch.stack(each) + field.weights.log()[:, None], 0)
    torch.testing.assert_close(field.log_density(x, sigma), expected)


@pytest.mark.parametrize("field", [SINGLE, MIXED])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_the_score_is_minus_noise_over_sigma(field, sigma):
    x = field.sample(3, seed=0, sigma=sigma).requires_grad_()
    (score,) = torch.autograd.grad(field.log_density(x, sigma).sum(), x)
    torch.testing.assert_close(score, -field.denoise(x.detach(), sigma)[1] / sigma, rtol=1e-8, atol=1e-10)


def test_a_sigma_for_each_sample():
    x, sigmas = normal(3, *SHAPE, seed=0), f64([0.1, 1.0, 7.0])
    for n in range(3):
        for found, alone in zip(MIXED.denoise(x, sigmas), MIXED.denoise(x[n : n + 1], sigmas[n]), strict=True):
            torch.testing.assert_close(found[n : n + 1], alone)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 16, 4)])
def test_solvers_arrive_where_the_flow_is_known_to_lead(shape):
    path = paths.Flow(0.002, 80.0)
    field = GaussianField(shape, std=0.5, means=normal(1, *shape, seed=2))
    solved = sample(
        *(field.denoiser(path), "rk4", 801), range(3), grid="log_snr", dtype=torch.float64, final="sigma_min"
    ).x
    begin = seeded_noise(range(3), shape).double() * path.prior_std(f64(80.0))
    torch.testing.assert_close(solved, field.flow(begin, 80.0, 0.002), rtol=0, atol=1e-6)


def test_the_flow_goes_back_where_it_came_from():
    x = normal(2, *SHAPE, seed=0)
    torch.testing.assert_close(SINGLE.flow(SINGLE.flow(x, 3.0, 0.1), 0.1, 3.0), x)


def test_samples_have_their_weights_and_are_a_function_of_the_seed():
    x = MIXED.sample(600, seed=0)
    nearest = (x[:, None] - MIXED.means).flatten(2).norm(dim=2).argmin(1)
    for k, share in enumerate((1 / 6, 1 / 3, 1 / 2)):
        assert float((nearest == k).double().mean()) == pytest.approx(share, abs=0.1)
    assert torch.equal(x, MIXED.sample(600, seed=0))
    assert not torch.equal(x, MIXED.sample(600, seed=1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": (4, 4)}, "is no image; give (C, H, W)"),
        ({"shape": (3, 0, 4)}, "axis 1=0"),
        ({"std": 0.0}, "std=0 is one image only"),
        ({"std": -1.0}, "std"),
        ({"power": math.nan}, "power"),
        ({"means": torch.zeros(2, 3, 4, 5)}, "means has shape (2, 3, 4, 5)"),
        ({"means": torch.full((1, *SHAPE), math.inf)}, "give finite numbers"),
        ({"means": "x"}, "means is the str 'x'"),
        ({"weights": f64([1.0, 2.0])}, "weights are not 1 positive numbers"),
        ({"weights": f64([-1.0])}, "weights are not 1 positive numbers"),
    ],
)
def test_what_is_no_field_is_refused_by_name(changes, words):
    assert words in one_line(DDIMError, lambda: GaussianField(**{"shape": SHAPE} | changes))


def test_what_a_field_cannot_be_asked():
    assert "has no closed form; give a field with one" in one_line(
        DDIMError, MIXED.flow, normal(1, *SHAPE, seed=0), 1, 0
    )
    assert "xbar has shape (1, 3, 4, 4)" in one_line(DDIMError, SINGLE.denoise, normal(1, 3, 4, 4, seed=0), 1.0)
    assert "sigma=-1" in one_line(DDIMError, SINGLE.denoise, normal(1, *SHAPE, seed=0), -1.0)
