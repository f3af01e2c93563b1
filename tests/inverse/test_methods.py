"""The methods: their papers' formulas by hand, and what they sample where the posterior is known."""

import math

import pytest
import torch

import ddim_ode
from ddim_ode.inverse import (
    MEASUREMENT,
    Blur,
    BoxDownsampling,
    Differentiable,
    Mask,
    MeasurementError,
    MomentMatching,
    PosteriorSampling,
    Projected,
    PseudoInverse,
    pigdm,
)
from ddim_ode.models.conditions import Conditions
from ddim_ode.models.guidance import Guided
from ddim_ode.paths import Noise
from ddim_ode.support.checks import ArgumentError
from tests.helpers.gaussians import Gaussian, matrix_of
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64, normal

SHAPE, D = (1, 4, 4), 16
FACTOR = normal(D, D, seed=8) / 4
GAUSSIAN = Gaussian(0.3 * normal(*SHAPE, seed=7), FACTOR @ FACTOR.T + 0.05 * torch.eye(D).double())
ROUND = Gaussian(0.3 * normal(*SHAPE, seed=7), 0.49 * torch.eye(D).double())
OPERATORS = {"mask": Mask.random((4, 4), 0.5), "down": BoxDownsampling(2), "blur": Blur.gaussian(0.7)}


def told(y, count):
    return Conditions(None, {MEASUREMENT: y.expand(count, *y.shape[1:])})


def case(operator, sigma=0.8, noise_std=0.2, gaussian=GAUSSIAN):
    """A state, a measurement, and what the formulas are made of: data, J, A, y - A data."""
    xbar, y = normal(1, *SHAPE, seed=1), operator.seen(normal(1, *operator.measured(SHAPE), seed=2))
    data = gaussian.denoise(xbar, sigma)[0]
    matrix = matrix_of(operator, SHAPE)
    left = (y - operator.apply(data)).flatten()
    return xbar, y, data.flatten(), gaussian.jacobian(sigma), matrix, left


def check(method, xbar, y, sigma, expected):
    """The data, the noise that goes with it, and the cost."""
    found = method(xbar, sigma, told(y, 1))
    torch.testing.assert_close(found.data.flatten(), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.data + sigma * found.noise, xbar, rtol=0, atol=1e-12)
    assert found.evaluations == method.evaluations(sigma)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("prior", [1.0, 0.7])
def test_the_formulas(operator, prior):
    sigma, noise = 0.8, 0.2
    xbar, y, data, jacobian, matrix, left = case(operator)
    r2 = prior**2 * sigma**2 / (prior**2 + sigma**2)
    eye = torch.eye(len(matrix)).double()
    inverse = torch.linalg.inv(r2 * matrix @ matrix.T + noise**2 * eye)
    model = GAUSSIAN.denoiser()
    projected = data + r2 * matrix.T @ inverse @ left
    check(Projected(model, operator, noise, prior), xbar, y, sigma, projected)
    guided = data + sigma**2 * jacobian.T @ matrix.T @ inverse @ left
    check(PseudoInverse(model, operator, noise, prior), xbar, y, sigma, guided)
    q = inverse @ left
    g = jacobian.T @ matrix.T @ q
    image = sigma**2 * matrix @ g + noise**2 * q
    step = (left @ q) / (q @ image)
    matched = data + sigma**2 * step * g + r2 * matrix.T @ inverse @ (left - step * image)
    check(MomentMatching(model, operator, noise, prior), xbar, y, sigma, matched)
    sampled = data + 0.3 * sigma**2 / r2 * jacobian.T @ matrix.T @ left / left.norm()
    check(PosteriorSampling(model, operator, noise, prior, scale=0.3), xbar, y, sigma, sampled)


def test_null_space_projection_is_the_papers():
    """DDNM, Eq. 13: A^+ y + (I - A^+ A) data."""
    for operator in OPERATORS.values():
        xbar, y, data, _, matrix, _ = case(operator)
        y = operator.apply(normal(1, *SHAPE, seed=9))  # in the range of A, where the blur's is a part of the space
        inverse = torch.linalg.pinv(matrix, rtol=1e-4)
        expected = inverse @ y.flatten() + data - inverse @ matrix @ data
        found = Projected(GAUSSIAN.denoiser(), operator)(xbar, 0.8, told(y, 1))
        torch.testing.assert_close(found.data.flatten(), expected, rtol=0, atol=1e-9)


def test_moment_matching_is_the_posterior_mean_where_one_direction_is_measured():
    """One step of conjugate gradients solves a system of one unknown, whatever the covariance."""
    operator = Differentiable(lambda x: x.flatten(1)[:, 3:4] + 2 * x.flatten(1)[:, 5:6])
    row = torch.zeros(1, D).double()
    row[0, 3], row[0, 5] = 1, 2
    xbar, sigma, noise = normal(1, *SHAPE, seed=1), 0.8, 0.2
    y = f64([[0.7]])
    data = GAUSSIAN.denoise(xbar, sigma)[0].flatten()
    covariance = sigma**2 * GAUSSIAN.jacobian(sigma)
    gain = covariance @ row.T / (row @ covariance @ row.T + noise**2)
    expected = data + (gain * (0.7 - row @ data)).flatten()
    check(MomentMatching(GAUSSIAN.denoiser(), operator, noise), xbar, y, sigma, expected)


def test_moment_matching_is_pigdm_where_that_is_right():
    for operator in OPERATORS.values():
        xbar, y, *_ = case(operator)
        ours = MomentMatching(ROUND.denoiser(), operator, 0.2, 0.7)(xbar, 0.8, told(y, 1))
        theirs = PseudoInverse(ROUND.denoiser(), operator, 0.2, 0.7)(xbar, 0.8, told(y, 1))
        torch.testing.assert_close(ours.data, theirs.data, rtol=0, atol=1e-12)


def test_moment_matching_does_not_explode_where_pigdm_does():
    """A direction of variance 400 p^2, at a sigma above it: PiGDM goes 400 times too far."""
    wide = Gaussian(torch.zeros(SHAPE).double(), torch.ones(D, D).double() * 25 + 0.01 * torch.eye(D).double())
    operator, sigma = OPERATORS["down"], 500.0
    xbar, y = torch.zeros(1, *SHAPE).double(), torch.ones(1, 1, 2, 2).double()
    assert float(PseudoInverse(wide.denoiser(), operator)(xbar, sigma, told(y, 1)).data.abs().max()) > 300
    found = MomentMatching(wide.denoiser(), operator)(xbar, sigma, told(y, 1)).data
    torch.testing.assert_close(found, torch.ones(1, *SHAPE).double(), rtol=0, atol=0.01)


@pytest.mark.parametrize("noise_std", [0.0, 0.3])
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("kind", [PseudoInverse, Projected, MomentMatching])
def test_samples_of_a_gaussian_are_of_its_posterior(kind, operator, noise_std):
    """The flow is affine in its noise, so that its samples' mean and covariance follow from D + 1 of them, exactly."""
    model = kind(ROUND.denoiser(), operator, noise_std, 0.7)
    y = operator.apply(normal(1, *SHAPE, seed=5))
    noise = torch.cat([torch.zeros(1, D), torch.eye(D)]).double().reshape(-1, *SHAPE)
    how = {"method": "adams3", "nfe": 60 * model.evaluations(1.0), "dtype": torch.float64}
    found = ddim_ode.sample(model, noise=noise, conditions={MEASUREMENT: y.expand(D + 1, *y.shape[1:])}, **how)
    centre, spread = found.x[0], (found.x[1:] - found.x[0]).flatten(1)
    mean, covariance = ROUND.posterior(matrix_of(operator, SHAPE), y, noise_std)
    size = float(ROUND.covariance.diagonal().mean())
    torch.testing.assert_close(centre, mean, rtol=0, atol=0.05 * math.sqrt(size))
    torch.testing.assert_close(spread.T @ spread, covariance, rtol=0, atol=0.05 * size)


def widths(kind, operator, noise_std=0.1):
    """Where neighbours are alike and the path is EDM's: the samples' standard deviation over the posterior's."""
    line = torch.arange(6.0).double()
    near = torch.exp(-((line[:, None] - line) ** 2) / 8)
    smooth = Gaussian(0.2 * normal(1, 6, 6, seed=7), 0.2 * torch.kron(near, near) + 1e-3 * torch.eye(36).double())
    y = operator.apply(smooth.mean[None] + 0.4 * normal(1, 1, 6, 6, seed=3))
    model = kind(smooth.denoiser(Noise(0.002, 80.0)), operator, noise_std)
    conditions = {MEASUREMENT: y.expand(64, *y.shape[1:])}
    how = {"method": "dpmpp_2m", "nfe": 60, "dtype": torch.float64}
    x = ddim_ode.sample(model, seeds=range(64), conditions=conditions, **how).x
    _, covariance = smooth.posterior(matrix_of(operator, smooth.shape), y, noise_std)
    return float((x.flatten(1).var(0).mean() / covariance.diagonal().mean()).sqrt())


def test_where_pixels_are_correlated_moment_matching_is_as_wide_as_the_posterior():
    for operator in (Mask.random((6, 6), 0.6), BoxDownsampling(2), Blur.gaussian(1.0)):
        assert widths(MomentMatching, operator) == pytest.approx(1, abs=0.15)
    assert widths(PseudoInverse, Mask.random((6, 6), 0.6)) > 1.3
    assert widths(Projected, Mask.random((6, 6), 0.6)) > 1.3


def test_sigma_may_differ_from_sample_to_sample():
    sigmas, xbar = f64([0.01, 0.5, 40.0]), normal(3, *SHAPE, seed=3)
    y = OPERATORS["mask"].apply(normal(3, *SHAPE, seed=4))
    model = GAUSSIAN.denoiser()
    kinds = (Projected, PseudoInverse, MomentMatching, PosteriorSampling, pigdm)
    for method in [kind(model, OPERATORS["mask"], noise) for kind in kinds for noise in (0.0, 0.1)]:
        together = method(xbar, sigmas, Conditions(None, {MEASUREMENT: y}))
        for i, sigma in enumerate(sigmas.tolist()):
            alone = method(xbar[i : i + 1], sigma, Conditions(None, {MEASUREMENT: y[i : i + 1]}))
            torch.testing.assert_close(together.data[i], alone.data[0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(together.noise[i], alone.noise[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_at_sigma_zero_everything_is_finite(noise_std):
    model, operator = GAUSSIAN.denoiser(), OPERATORS["mask"]
    xbar, y = normal(1, *SHAPE, seed=3), operator.apply(normal(1, *SHAPE, seed=4))
    for kind in (Projected, PseudoInverse, MomentMatching, PosteriorSampling, pigdm):
        found = kind(model, operator, noise_std)(xbar, 0.0, told(y, 1))
        assert torch.isfinite(found.data).all()
        assert torch.isfinite(found.noise).all()
    found = Projected(model, operator, noise_std)(xbar, 0.0, told(y, 1))
    torch.testing.assert_close(found.data, xbar if noise_std else torch.where(operator.known, y, xbar))


def test_pigdm_switches_to_projection_above_a_sigma():
    model, operator = GAUSSIAN.denoiser(), OPERATORS["mask"]
    both, (xbar, y, *_) = pigdm(model, operator, highest=3.0), case(operator)
    assert [both.evaluations(sigma) for sigma in (1.0, 3.0, 3.1)] == [2, 2, 1]
    for sigma, kind in ((2.0, PseudoInverse), (4.0, Projected)):
        assert torch.equal(both(xbar, sigma, told(y, 1)).data, kind(model, operator)(xbar, sigma, told(y, 1)).data)


def test_labels_reach_the_model_inside_and_its_guidance():
    mixture = labelled(shape=SHAPE)
    model, operator = mixture.denoiser(ddim_ode.paths.DiscreteVP.linear()), OPERATORS["mask"]
    xbar, y = normal(2, *SHAPE, seed=3), operator.apply(normal(2, *SHAPE, seed=4))
    labels = torch.tensor([0, 2])
    guided = Guided(model, 2.0)
    method = Projected(guided, operator)
    assert method.evaluations(1.0) == 2
    assert MomentMatching(guided, operator).evaluations(1.0) == 4
    expected = guided(xbar, 1.0, labels).data
    found = method(xbar, 1.0, Conditions(labels, {MEASUREMENT: y})).data
    torch.testing.assert_close(found, torch.where(operator.known, y, expected))


def test_other_conditions_reach_the_network():
    asked = []

    def net(x, t, image):
        asked.append(image)
        return torch.zeros_like(x)

    model = ddim_ode.Denoiser(net, ddim_ode.paths.DiscreteVP.linear(), "noise", SHAPE)
    y, image = torch.zeros(2, *SHAPE), torch.ones(2, 3)
    Projected(model, OPERATORS["mask"])(torch.zeros(2, *SHAPE), 1.0, Conditions(None, {MEASUREMENT: y, "image": image}))
    assert torch.equal(asked[0], image)


def test_two_methods_have_two_fingerprints():
    from ddim_ode.models.identity import fingerprint

    model = GAUSSIAN.denoiser()
    ways = [
        Projected(model, OPERATORS["mask"]),
        Projected(model, Mask.half((4, 4))),
        Projected(model, OPERATORS["mask"], 0.1),
        MomentMatching(model, OPERATORS["mask"]),
        PosteriorSampling(model, OPERATORS["mask"], scale=0.2),
        PosteriorSampling(model, OPERATORS["mask"], scale=0.3),
        pigdm(model, OPERATORS["mask"]),
        pigdm(model, OPERATORS["mask"], highest=5.0),
    ]
    assert len({fingerprint(way) for way in ways}) == len(ways)
    assert fingerprint(Projected(model, Mask.random((4, 4), 0.5))) == fingerprint(ways[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: Projected(m, OPERATORS["mask"], -1.0), "noise_std=-1.0 must be a finite number >= 0"),
        (lambda m: Projected(m, OPERATORS["mask"], 0.0, 0.0), "prior_std=0.0 must be a finite number > 0"),
        (lambda m: PosteriorSampling(m, OPERATORS["mask"], scale=0.0), "scale=0.0"),
        (lambda m: Projected(m, Differentiable(torch.tanh)), "Projected needs a linear operator"),
        (lambda m: PseudoInverse(m, Differentiable(torch.tanh)), "needs a linear operator; use method='mmps'"),
        (lambda m: Projected(m, OPERATORS["mask"])(torch.zeros(1, *SHAPE), 1.0), "nothing was measured"),
        (lambda m: Projected(m, OPERATORS["mask"])(torch.zeros(1, 3), 1.0, None), "this model needs (B, 1, 4, 4)"),
    ],
)
def test_what_cannot_be_is_one_line(make, words):
    with pytest.raises(MeasurementError) as caught:
        make(GAUSSIAN.denoiser())
    assert words in str(caught.value)


def test_what_is_no_operator():
    with pytest.raises(ArgumentError, match="operator is"):
        Projected(GAUSSIAN.denoiser(), torch.tanh)
    with pytest.raises(ArgumentError, match="model is"):
        Projected("fashion", OPERATORS["mask"])
