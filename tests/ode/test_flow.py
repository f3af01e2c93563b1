"""The probability flow against flows known in closed form, on every path."""

import math
from itertools import pairwise

import pytest
import torch

from ddim_ode import paths
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import Guided
from ddim_ode.ode.flow import DomainError, ProbabilityFlow
from ddim_ode.sampling import sample
from tests.helpers.mixtures import labelled, two_modes
from tests.helpers.networks import Counting, Recording
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64, normal

MEAN, STD = f64([0.3, -1.2]), 0.4
CHART = paths.Noise(0.01, 100.0)
DOMAIN = (0.01, 100.0)


def gaussian() -> GaussianMixture:
    return GaussianMixture(MEAN[None], STD)


def flow(xbar: torch.Tensor, s0: float, s1: torch.Tensor | float) -> torch.Tensor:
    """N(m, s^2) carried from sigma = s0 to s1: every quantile keeps its place."""
    return MEAN + (xbar - MEAN) * torch.sqrt((STD**2 + f64(s1) ** 2) / (STD**2 + s0**2))


@pytest.mark.parametrize("predicts", ["noise", "data", "velocity"])
@pytest.mark.parametrize("name", PATHS)
def test_f_is_the_derivative_of_the_exact_flow(name, predicts):
    path = PATHS[name]
    ode = ProbabilityFlow(gaussian().denoiser(CHART, predicts), path, DOMAIN)
    xbar = 5 * normal(4, 2, seed=0)
    for sigma in [0.05, 0.31, 1.7, 8.3]:
        u = path.u(f64(sigma))
        if path.num_timesteps and not path.sigma_min < sigma < path.sigma_max:
            continue
        if path.num_timesteps:
            u = u.floor() + 0.37  # away from the nodes, where the slope jumps
        h = 1e-3 * min(float(u), 1.0) * (0.1 if name in ("angle", "flow") else 1)

        def y(u: torch.Tensor, s0: float = float(path.sigma(u))) -> torch.Tensor:
            return path.coefficients(u)[0] * flow(xbar, s0, path.sigma(u))

        expected = (8 * (y(u + h) - y(u - h)) - (y(u + 2 * h) - y(u - 2 * h))) / (12 * h)
        torch.testing.assert_close(ode(u, y(u)), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", PATHS)
def test_f_is_the_chain_rule_on_a_mixture(name):
    # dy/du = (a xbar)' with dxbar/dsigma = -sigma * score: another formula, by autograd of the density
    path, mixture = PATHS[name], labelled()
    ode = ProbabilityFlow(mixture.denoiser(CHART), path, DOMAIN)
    for sigma in [0.2, 1.0, 4.0]:
        u = path.u(f64(sigma))
        a, _ = path.coefficients(u)
        da, db = path.slopes(u)
        dsigma = (db - sigma * da) / a
        xbar = mixture.sample(5, seed=0, sigma=sigma).requires_grad_()
        (score,) = torch.autograd.grad(mixture.log_density(xbar, sigma).sum(), xbar)
        expected = da * xbar.detach() - a * dsigma * sigma * score
        torch.testing.assert_close(ode(u, a * xbar.detach()), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", PATHS)
def test_enter_and_leave_scale_by_a(name):
    path = PATHS[name]
    ode = ProbabilityFlow(gaussian().denoiser(CHART), path, DOMAIN)
    xbar = normal(3, 2, seed=0)
    for sigma in [0.02, 1.0, 40.0]:
        a, _ = path.coefficients(path.u(f64(min(max(sigma, path.sigma_min), path.sigma_max))))
        y = ode.enter(xbar, min(max(sigma, path.sigma_min), path.sigma_max))
        torch.testing.assert_close(y, a * xbar, rtol=1e-11, atol=0)
        torch.testing.assert_close(ode.leave(ode.enter(xbar, f64(sigma)), sigma), xbar, rtol=1e-14, atol=0)
    assert ode.enter(xbar.float(), 2.0).dtype == ode.leave(xbar.float(), 2.0).dtype == torch.float32


@pytest.mark.parametrize("name", PATHS)
def test_the_state_keeps_its_precision(name):
    ode = ProbabilityFlow(gaussian().denoiser(CHART), PATHS[name], DOMAIN)
    u = PATHS[name].u(f64(1.0))
    for dtype in (torch.float32, torch.float64):
        assert ode(u, normal(2, 2, seed=0).to(dtype)).dtype == dtype


def one_dimensional_error(steps: int) -> float:
    """DDIM on two modes against the exact flow, which in one dimension keeps the distribution function."""
    high, low = 20.0, 0.05
    start = f64([-25.0, -9.0, -1.0, 0.1, 2.0, 14.0, 30.0])

    def below(x: torch.Tensor, sigma: float) -> torch.Tensor:
        modes = [(-1.0, 0.2, 0.4), (0.6, 0.3, 0.6)]
        return sum(w * torch.special.ndtr((x - m) / math.hypot(s, sigma)) for m, s, w in modes)

    left, right = torch.full_like(start, -50.0), torch.full_like(start, 50.0)
    for _ in range(100):
        middle = (left + right) / 2
        under = below(middle, low) < below(start, high)
        left, right = torch.where(under, middle, left), torch.where(under, right, middle)
    grid = torch.exp(torch.linspace(math.log(high), math.log(low), steps + 1, dtype=torch.float64))
    model = two_modes().denoiser(paths.Noise(0.01, 30.0))
    x = sample(model, "ddim", grid=grid, start=start[:, None], dtype=torch.float64).x[:, 0]
    return float((x - left).abs().max())


def test_ddim_converges_to_the_exact_flow_of_two_modes_at_order_one():
    errors = [one_dimensional_error(steps) for steps in (80, 160, 320, 640, 1280)]
    assert errors[-1] < 0.01
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([1.0] * 4, abs=0.15)


def test_ddim_converges_to_the_exact_flow_of_a_gaussian():
    start = 20 * normal(5, 2, seed=0)
    model = gaussian().denoiser(paths.Noise(0.01, 30.0))
    exact = flow(start, 20.0, 0.05)
    errors = []
    for steps in (100, 200, 400, 800, 1600):
        grid = torch.exp(torch.linspace(math.log(20), math.log(0.05), steps + 1, dtype=torch.float64))
        x = sample(model, "ddim", grid=grid, start=start, dtype=torch.float64).x
        errors.append(float((x - exact).abs().max()))
    assert errors[-1] < 0.005
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([1.0] * 4, abs=0.15)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("sigma", "allowed"), [(0.5, True), (4.0, True), (0.499, False), (4.01, False), (1.0, True)])
def test_the_domain_is_guarded(name, sigma, allowed):
    path = PATHS[name]
    ode = ProbabilityFlow(gaussian().denoiser(CHART), path, (0.5, 4.0))
    u, y = path.u(f64(sigma)), normal(2, 2, seed=0)
    if allowed:
        assert ode(u, y).shape == (2, 2)
        assert ode.nfe == 1
    else:
        with pytest.raises(DomainError, match=rf"left its interval: sigma={sigma} is not in \[0\.5, 4\]"):
            ode(u, y)
        assert ode.nfe == 0


@pytest.mark.parametrize("sigma", [-270.0, 0.0, math.nan, math.inf])
def test_nonsense_is_outside_the_domain(sigma):
    ode = ProbabilityFlow(gaussian().denoiser(CHART), paths.noise, (0.5, 4.0))
    with pytest.raises(DomainError, match="left its interval"):
        ode(f64(sigma), normal(2, 2, seed=0))


def test_every_pass_is_counted():
    counting = Counting(labelled().denoiser(CHART).net)
    model = Guided(Denoiser(counting, CHART, "noise", (2, 3), 3), 2.0, sigma_range=(1.0, 4.0))
    ode = ProbabilityFlow(model, paths.noise, DOMAIN, torch.tensor([0, 1]))
    xbar = normal(2, 2, 3, seed=0)
    spent = []
    for sigma in [8.0, 4.0, 2.0, 1.0, 0.5]:
        ode.predict(xbar, f64(sigma))
        spent.append(ode.nfe)
        assert counting.rows == 2 * ode.nfe
    assert spent == [1, 3, 5, 7, 8]


def test_labels_reach_the_network_and_gradients_do_not():
    net = Recording()
    ode = ProbabilityFlow(Denoiser(net, CHART, "noise", (2,), 3), paths.noise, DOMAIN, torch.tensor([2, 0]))
    out = ode(f64(1.0), normal(2, 2, seed=0).requires_grad_())
    assert net.calls[0][2].tolist() == [2, 0]
    assert not out.requires_grad
