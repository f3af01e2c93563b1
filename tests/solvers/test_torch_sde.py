"""The SDE: its marginals, and the orders at which its solvers follow one Brownian path."""

import math
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from torch import Tensor

from ddim_ode import paths
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import two_modes
from tests.helpers.pretending import pretended
from tests.helpers.tensors import f64, normal

MODES = two_modes()
ENDS = 0.9, 0.3


@cache
def strong(name: str, steps: int, eta: float, count: int = 64) -> Tensor:
    model = MODES.denoiser(paths.Flow(0.001, 40.0))
    start = MODES.sample(count, seed=1, sigma=ENDS[0])
    grid = f64(np.geomspace(*ENDS, steps + 1))
    return sample(model, name, grid=grid, start=start, eta=eta, dtype=torch.float64, batch_size=count).x


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("ddim", 1), ("heun_angle", 1), ("sde_euler", 1), ("sde_milstein", 1), ("sde_heun", 1), ("sde_midpoint", 1),
        ("sde_dpmpp_2m", 1), ("sde_srk", 1.5),
    ],
)  # fmt: skip
def test_strong_order_on_one_path(name, order):
    """Against SRA1 with 2,000 steps; DDIM's kernel, too, converges to the solution of the SDE."""
    steps = [16, 32, 64, 128]
    exact = strong("sde_srk", 2000, 1.0)
    errors = [(strong(name, n, 1.0) - exact).square().mean().sqrt().item() for n in steps]
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(
    ("name", "eta"), [("ddim", 0), *product(("ddim", "sde_euler", "sde_srk", "sde_dpmpp_2m"), (0.5, 1))]
)
@pytest.mark.parametrize(
    ("dimensions", "count"),
    [(2, 400), (64, 100), *(pytest.param(d, 20_000, marks=pytest.mark.slow) for d in (2, 64))],
)
def test_the_marginals_are_those_of_the_mixture(name, eta, dimensions, count):
    """At sigma_min: means, deviations, covariances and the modes' shares, within five standard errors and a bit.

    Without noise nothing is forgotten, not even that at sigma = 60 the mean is not yet 0: it starts from exact samples.
    """
    means = 1.5 * torch.sign(normal(2, dimensions, seed=0))
    means[1] = -means[0]
    mixture = GaussianMixture(means, [0.3, 0.5], [0.7, 0.3])
    model = mixture.denoiser(paths.Flow(0.02, 60.0))
    begin = {"seeds": range(count)} if eta else {"start": mixture.sample(count, seed=9, sigma=60.0)}
    common = {"final": "sigma_min", "dtype": torch.float64, "batch_size": 2000}
    x = sample(model, name, nfe=240, eta=eta, **begin, **common).x
    share = (x @ means[0] > 0).double().mean()
    assert share == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / count) + 0.01)
    for sign, mean, std, weight in [(1, means[0], 0.3, 0.7), (-1, means[1], 0.5, 0.3)]:
        own = x[sign * (x @ means[0]) > 0]
        error = std / math.sqrt(weight * count)
        assert (own.mean(0) - mean).abs().max() < 5 * error + 0.01
        assert (own.std(0) / math.hypot(std, 0.02) - 1).abs().mean() < 0.02 + 2 / math.sqrt(weight * count)
        covariance = torch.cov(own.mT) / (std**2 + 0.02**2)
        off = (covariance - torch.eye(dimensions)).abs().max()
        assert off < 0.03 + 5.5 * math.sqrt(2 / (weight * count))  # of a variance the standard error is sqrt(2 / n)


@pytest.mark.parametrize(("name", "eta"), [("ddim", 0), ("ddim", 1), ("sde_euler", 0.5), ("sde_srk", 1)])
def test_no_energy_distance_from_exact_samples(name, eta):
    """Szekely & Rizzo 2004: a permutation test at the 1% level, 600 samples against 600 drawn exactly."""
    means = f64([[1.0, -0.5], [-1.0, 0.8]])
    mixture, count = GaussianMixture(means, [0.3, 0.5], [0.7, 0.3]), 600
    model = mixture.denoiser(paths.Flow(0.02, 60.0))
    common = {"final": "sigma_min", "dtype": torch.float64, "batch_size": count}
    x = sample(model, name, 240, range(count), eta=eta, **common).x
    exact = mixture.sample(count, seed=5, sigma=0.02)
    distances = torch.cdist(both := torch.cat([x, exact]), both)

    def energy(order: Tensor) -> float:
        a, b = order[:count], order[count:]
        return float(2 * distances[a][:, b].mean() - distances[a][:, a].mean() - distances[b][:, b].mean())

    generator = torch.Generator().manual_seed(0)
    found = energy(torch.arange(2 * count))
    others = [energy(torch.randperm(2 * count, generator=generator)) for _ in range(199)]
    assert sum(other >= found for other in others) + 1 > 0.01 * 200


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("sde_srk", 1.5), ("sde_dpmpp_2m", 1)])
def test_a_sample_changes_little_as_the_steps_grow(name, order):
    """At NFE 50, 100, 200, 400 with the same seeds: the distance falls at the strong order, or faster."""
    model = MODES.denoiser(paths.Flow(0.02, 60.0))
    common = {"grid": "log_snr", "dtype": torch.float64, "final": "sigma_min", "batch_size": 256}
    found = [sample(model, name, nfe, range(256), eta=1, **common).x for nfe in (50, 100, 200, 400)]
    gaps = [float((a - b).abs().median()) for a, b in pairwise(found)]
    assert -np.polyfit([0, 1, 2], np.log2(gaps), 1)[0] > order - 0.2


@pytest.mark.parametrize(("name", "order"), [("sde_euler", 1), ("sde_srk", 2)])
def test_weak_order(name, order):
    """The error of the mean and of the second moment, on the paths of the reference so that chance cancels."""
    steps = [4, 8, 16, 32]
    exact = strong("sde_srk", 2000, 1.0, 4096)
    errors = [
        max(abs(float((found**k - exact**k).mean())) for k in (1, 2))
        for found in (strong(name, n, 1.0, 4096) for n in steps)
    ]
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] > order - 0.3


def test_steps_of_their_own_choice_follow_the_tolerance_on_the_same_path():
    model, ends = MODES.denoiser(paths.Flow(0.02, 60.0)), f64([60.0, 0.02])
    common = {"seeds": range(64), "dtype": torch.float64}
    exact = sample(model, "sde_srk", grid=np.geomspace(60, 0.02, 3001), **common).x
    found = [sample(model, "sde_adaptive", grid=ends, tol=tol, **common) for tol in (0.1, 0.01, 0.001)]
    errors = [float((run.x - exact).abs().median()) for run in found]
    assert errors[0] < 0.01
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    for run in found:
        assert run.converged.all()
        assert run.sigmas[0, 0] == 60
        assert run.sigmas[0, -1] == 0.02
        assert (run.sigmas.diff(dim=1) < 0).all()
        # five evaluations a trial, and one fewer where a trial begins with what the last one knew
        assert 4 * (run.steps + run.rejected)[0] <= run.nfe[0] <= 5 * (run.steps + run.rejected)[0]


def test_steps_of_their_own_choice_stay_within_their_budget():
    model = MODES.denoiser(paths.Flow(0.02, 60.0))
    short = sample(model, "sde_adaptive", tol=0.001, max_nfe=50, seeds=range(4))
    assert not short.converged.any()
    assert short.nfe.max() <= 50
    found = sample(model, "sde_adaptive", nfe=60, seeds=range(4))
    assert found.nfe.double().mean() <= 60
    assert torch.equal(sample(model, "sde_adaptive", tol=found.tol, seeds=range(4)).x, found.x)


@pytest.mark.parametrize("name", ["sde_euler", "sde_milstein", "sde_heun", "sde_midpoint", "sde_srk", "sde_adaptive"])
def test_nobody_elses_random_numbers_are_drawn(name):
    spent = {"tol": 0.1} if name == "sde_adaptive" else {"nfe": 8}
    state = torch.random.get_rng_state()
    sample(MODES.denoiser(paths.Flow(0.02, 60.0)), name, seeds=[1], **spent)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_steps_of_their_own_choice_wait_for_a_device_once_a_trial():
    def net(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * torch.tanh(x)

    model = Denoiser(net, paths.DiscreteVP.linear(), "noise", (1, 4, 4), device="lazy")
    with pretended() as mode:
        found = sample(model, "sde_adaptive", tol=0.05, seeds=[0, 1, 2])
    trials = int((found.steps + found.rejected)[0])
    assert trials > 10
    assert len(mode.waits) <= trials + 1  # and the image that it ends with


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_answer_that_is_no_number_is_told_with_its_step(bad):
    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t[0] < 900, bad, 0.5 * torch.tanh(x))

    model = Denoiser(net, paths.DiscreteVP.linear(), "noise", (1, 4, 4))
    for name, spent in (("sde_adaptive", {"tol": 0.05}), ("sde_srk", {"nfe": 20})):
        line = one_line(NonFiniteError, sample, model, name, seeds=[0, 1], **spent)
        assert "sample 0" in line
        assert "step" in line
