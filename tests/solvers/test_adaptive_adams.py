"""The adaptive Adams method: the tolerance is the error, at any order, on mixtures and on the network that ships."""

import math
from functools import cache

import numpy as np
import pytest
import torch

from ddim_ode import GaussianMixture, paths
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import Guided
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.sampling import sample
from ddim_ode.solvers import Control, Method
from ddim_ode.solvers.adaptive_adams import AdaptiveAdams
from tests.helpers.mixtures import MIXTURES
from tests.helpers.networks import network
from tests.helpers.plans import carry
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64, rms

TOLS = [1e-1, 3e-2, 1e-2, 3e-3, 1e-3]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_the_tolerance_is_the_error(mixture, schedule):
    model = MIXTURES[mixture].denoiser(PATHS[schedule])
    exact = sample(model, "rk4", nfe=2001, grid="log_snr", seeds=range(64), dtype=torch.float64).x
    for tol in TOLS:
        error = rms(sample(model, "adaptive", tol=tol, seeds=range(64), dtype=torch.float64).x - exact)
        assert error.median() <= tol
        assert error.quantile(0.9) <= 3 * tol


def test_hardly_a_sample_is_off_by_far():
    """In one dimension two orders agree by chance every so often; three hardly do."""
    model = GaussianMixture(f64([[-1.0], [1.0]]), 0.1).denoiser(PATHS["linear"])
    many = {"seeds": range(4096), "batch_size": 4096, "dtype": torch.float64}
    exact = sample(model, "rk4", nfe=2001, grid="log_snr", **many).x
    for tol in (1e-2, 3e-3, 1e-3, 3e-4):
        error = rms(sample(model, "adaptive", tol=tol, **many).x - exact)
        assert error.quantile(0.99) <= 3 * tol
        assert error.quantile(0.998) <= 10 * tol


def test_the_tolerance_is_the_error_of_the_network():
    model, arguments = network(), {"seeds": range(8), "labels": torch.arange(8) % 10}
    exact = sample(model, "rk4", nfe=241, grid="log_snr", dtype=torch.float64, **arguments).x
    for tol in (1e-1, 3e-2, 1e-2):
        error = rms(sample(model, "adaptive", tol=tol, **arguments).x - exact)
        assert error.median() <= tol
        assert error.quantile(0.9) <= 3 * tol


def test_a_revision_nearly_halves_the_error():
    """In as many steps, at the tolerances of images. At small ones it makes little difference."""
    model = MIXTURES["tight"].denoiser(PATHS["linear"])
    exact = sample(model, "rk4", nfe=2001, grid="log_snr", seeds=range(64), dtype=torch.float64).x
    for tol in (3e-2, 1e-2):
        with_it, without = (
            sample(model, Method(solver, paths.flow, "", 6, 1, ""), tol=tol, seeds=range(64), dtype=torch.float64)
            for solver in (AdaptiveAdams(), AdaptiveAdams(revise=0))
        )
        assert rms(with_it.x - exact).median() < 0.6 * rms(without.x - exact).median()
        assert with_it.nfe.double().mean() < 1.05 * without.nfe.double().mean()


@pytest.mark.parametrize("last", [0.98, 0.9])
def test_one_step_and_then_the_image(last):
    """With fewer slopes than orders must agree, what there are lead to the end."""
    model, start = MIXTURES["labelled"].denoiser(PATHS["linear"]), MIXTURES["labelled"].sample(6, seed=1, sigma=1.0)
    options = {"start": start, "dtype": torch.float64}
    exact = sample(model, "rk4", grid=[*np.linspace(1.0, last, 50), 0.0], **options).x
    found = sample(model, "adaptive", tol=1e-2, grid=[1.0, last, 0.0], **options)
    assert found.nfe.max() <= 3
    assert rms(found.x - exact).max() < 1e-2


def test_no_first_evaluation_that_cannot_be_paid():
    model = MIXTURES["labelled"].denoiser(PATHS["linear"])
    guided = Guided(model, 2.0, sigma_range=(0.0, 100.0))  # one evaluation at the largest sigma, two where it begins
    for most in (1, 2, 3):
        assert sample(guided, "adaptive", max_nfe=most, labels=[0]).nfe.max() <= most


@pytest.mark.parametrize("sigma_max", [150.0, 20_000.0])
@pytest.mark.parametrize("side", [64, 128])
def test_the_brightness_of_a_large_image_is_not_stepped_over(side, sigma_max):
    """Brightness of standard deviation 0.4 and pixels of 0.05, in closed form."""
    shape = (3, side, side)
    variances = 0.05**2 + math.prod(shape) * 0.4**2, 0.05**2  # of the two parts of an image

    def scaled(x, factors):
        mean = x.mean((1, 2, 3), keepdim=True)
        return factors[0] * mean + factors[1] * (x - mean)

    def net(x, t):
        return scaled(x, [v / (v + t.reshape(-1, 1, 1, 1) ** 2) for v in variances])

    model = Denoiser(net, paths.Noise(0.01, sigma_max), "data", shape)
    noise = sigma_max * seeded_noise(range(8), shape).double()
    exact = scaled(noise, [math.sqrt(v / (v + sigma_max**2)) for v in variances])
    for tol in (1e-1, 1e-2):
        error = rms(sample(model, "adaptive", tol=tol, seeds=range(8), dtype=torch.float64).x - exact)
        assert error.median() <= tol


@cache
def smooth() -> tuple[Denoiser, torch.Tensor]:
    """A mixture and where seeds 0..7 end."""
    model = MIXTURES["labelled"].denoiser(PATHS["linear"])
    return model, sample(model, "rk4", nfe=4001, grid="log_snr", seeds=range(8), dtype=torch.float64).x


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_the_error_falls_with_the_tolerance_at_any_order(most):
    model, exact = smooth()
    method = Method(AdaptiveAdams(most=most), paths.flow, "", most, 1, "")
    tols = np.geomspace(1e-2, 1e-4 if most == 1 else 1e-6, 5)
    runs = [sample(model, method, tol=tol, seeds=range(8), max_nfe=20_000, dtype=torch.float64) for tol in tols]
    errors = [rms(run.x - exact).median().item() for run in runs]
    assert np.polyfit(np.log(tols), np.log(errors), 1)[0] > most / (most + 1) - 0.2


def test_a_higher_order_is_worth_it():
    """Where the solution is smooth and the tolerance small."""
    model, _ = smooth()
    spent = []
    for most in range(2, 7):
        method = Method(AdaptiveAdams(most=most), paths.flow, "", most, 1, "")
        spent.append(sample(model, method, tol=1e-6, seeds=range(8), max_nfe=20_000, dtype=torch.float64).nfe.sum())
    assert spent == sorted(spent, reverse=True)
    assert spent[-1] < spent[0] / 3


def test_there_and_back():
    model = MIXTURES["labelled"].denoiser(PATHS["linear"])
    x = MIXTURES["labelled"].sample(32, seed=0, sigma=0.02)
    for tol in (1e-2, 1e-4):
        control = Control(tol, 1000)
        up = carry(model, "adaptive", f64([0.02, 100.0]), control, x)
        down = carry(model, "adaptive", f64([100.0, 0.02]), control, up.x)
        assert up.converged.all()
        assert rms(up.x).median() == pytest.approx(100, rel=0.2)
        assert rms(down.x - x).quantile(0.9) <= 3 * tol
