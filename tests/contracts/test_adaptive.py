"""Adaptive methods: samples of their own, budgets, ends and failures. For the tolerance see test_adaptive_adams.py."""

import dataclasses
import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ddim_ode import METHODS, GaussianMixture, paths
from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.models.guidance import Guided
from ddim_ode.planning.inputs import SampleError
from ddim_ode.sampling import sample
from ddim_ode.solvers import Control, DivergedError, Solution
from tests.helpers.mixtures import MIXTURES
from tests.helpers.networks import Counting, network
from tests.helpers.plans import carry
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64, normal, rms

ADAPTIVE = [name for name, method in METHODS.items() if method.adaptive and method.deterministic]


def counted(model: Denoiser) -> tuple[Denoiser, Counting]:
    counting = Counting(model.net)
    return dataclasses.replace(model, net=counting), counting


def check_alone(model: Denoiser, sizes: list[int], labels: torch.Tensor | None, dtype: torch.dtype, atol: float):
    """Seeds 0..6 in batches of several sizes: the same steps, the same cost, the same images."""
    total = 64
    solutions = []
    for size in sizes:
        count = 7 if size <= 7 else total
        given_labels = None if labels is None else labels[:count]
        seeds = range(count)
        solutions.append(sample(model, "adaptive", seeds=seeds, labels=given_labels, dtype=dtype, batch_size=size))
    first = solutions[0]
    for other in solutions[1:]:
        assert other.nfe[:7].tolist() == first.nfe.tolist()
        assert other.steps[:7].tolist() == first.steps.tolist()
        assert other.rejected[:7].tolist() == first.rejected.tolist()
        width = first.sigmas.shape[1]
        torch.testing.assert_close(other.sigmas[:7, :width], first.sigmas, rtol=100 * atol, atol=0, equal_nan=True)
        torch.testing.assert_close(other.x[:7], first.x, rtol=0, atol=atol)


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_sample_does_not_see_its_companions(mixture):
    check_alone(MIXTURES[mixture].denoiser(PATHS["cosine"]), [1, 7, 64], None, torch.float64, 1e-10)


def test_nor_with_a_network_in_single_precision():
    check_alone(network(), [1, 7, 64], torch.arange(64) % 10, torch.float32, 1e-5)


def test_the_network_never_sees_a_sample_that_is_done():
    model, counting = counted(MIXTURES["labelled"].denoiser(PATHS["linear"]))
    sol = sample(model, "adaptive", tol=1e-3, seeds=range(64))
    assert sol.nfe.max() > sol.nfe.min() + 5
    assert counting.rows == sol.nfe.sum()
    assert torch.equal(sol.nfe, sol.steps + sol.rejected)  # an evaluation to begin with, none for the last step
    assert (sol.sigmas[:, 0] == model.sigma_max).all()


@pytest.mark.parametrize("name", ADAPTIVE)
def test_nfe_is_what_a_counting_network_saw(name):
    model, counting = counted(MIXTURES["labelled"].denoiser(PATHS["linear"]))
    sol = sample(Guided(model, 2.0, sigma_range=(0.3, 6.0)), name, tol=3e-2, seeds=range(5), labels=[0, 1, 2, 1, 0])
    assert counting.rows == sol.nfe.sum()
    assert sol.converged.all()


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_watcher_sees_the_whole_way(name):
    seen = []
    model = MIXTURES["labelled"].denoiser(PATHS["linear"])
    sample(model, name, seeds=range(3), callback=seen.append)
    assert [now.step for now in seen] == list(range(1, len(seen) + 1))
    shares = [now.share for now in seen]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 and now.steps is None for share, now in zip(shares, seen, strict=True))
    assert all(now.xbar.shape == (3, 2, 3) and now.xbar.isfinite().all() for now in seen)
    assert not any(torch.equal(a.xbar, b.xbar) for a, b in pairwise(seen))


# --- ends


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("grid", [[20.0, 0.0], [20.0, 0.05], [20.0, 0.05, 0.0]])
def test_it_begins_and_ends_where_it_is_told(name, grid):
    model, start = MIXTURES["labelled"].denoiser(PATHS["linear"]), MIXTURES["labelled"].sample(6, seed=1, sigma=20.0)
    last = model.sigma_min if grid[1] == 0 else grid[1]
    fine = [*np.geomspace(20.0, last, 500), *([0.0] if grid[-1] == 0 else [])]
    exact = sample(model, "rk4", grid=fine, start=start, dtype=torch.float64).x
    sol = sample(model, name, grid=grid, start=start, tol=1e-4, dtype=torch.float64)
    assert rms(sol.x - exact).median() < 1e-3
    check_nodes(sol, grid[-1])


@pytest.mark.parametrize("final", ["denoise", "sigma_min"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_every_node_is_kept_once(name, final):
    model = MIXTURES["labelled"].denoiser(PATHS["linear"])
    sol = sample(model, name, seeds=range(64), final=final)
    check_nodes(sol, 0.0 if final == "denoise" else model.sigma_min)


def check_nodes(sol: Solution, last: float):
    for row, steps in zip(sol.sigmas, sol.steps, strict=True):
        visited = row[~row.isnan()]
        assert len(visited) == steps + 1
        assert visited[-1] == last
        assert (visited.diff() < 0).all()


def test_a_budget_becomes_a_tolerance():
    model, counting = counted(MIXTURES["labelled"].denoiser(PATHS["linear"]))
    for nfe in (4, 8, 15, 30):
        sol = sample(model, "adaptive", nfe=nfe, seeds=range(8))
        assert 0.75 * nfe < sol.nfe.double().mean() <= nfe
        counting.rows = 0
        again = sample(model, "adaptive", tol=sol.tol, seeds=range(8))
        assert torch.equal(again.x, sol.x)
        assert sample(model, "adaptive", nfe=nfe, max_nfe=nfe, seeds=[5]).tol == sol.tol


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("most", [1, 2, 5, 30])
def test_it_stops_at_max_nfe_and_says_so(name, most):
    plain = MIXTURES["labelled"].denoiser(PATHS["linear"])
    exact = sample(plain, "adaptive", tol=1e-6, seeds=range(16), dtype=torch.float64).x
    ddim = sample(plain, "ddim", nfe=1, seeds=range(16), dtype=torch.float64).x
    model, counting = counted(plain)
    sol = sample(model, name, tol=1e-5, max_nfe=most, seeds=range(16), dtype=torch.float64)
    assert not sol.converged.any()
    assert sol.nfe.max() <= most
    assert counting.rows == sol.nfe.sum()
    # The way that was gone is not lost: the DDIM step from there is no worse than one all the way.
    assert rms(sol.x - exact).median() <= rms(ddim - exact).median() + 1e-10
    if most == 1:
        torch.testing.assert_close(sol.x, ddim, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_guidance_does_not_carry_it_past_max_nfe(name):
    model, counting = counted(MIXTURES["labelled"].denoiser(PATHS["linear"]))
    guided = Guided(model, 2.0, sigma_range=(1.0, 1000.0))
    with pytest.raises(SampleError, match="max_nfe=1 is too small: one step costs 2 evaluations; use max_nfe >= 2"):
        sample(guided, name, max_nfe=1, labels=[0])
    for most in (2, 3, 19, 20, 21, 41, 42, 43):
        counting.rows = 0
        sol = sample(guided, name, tol=1e-5, max_nfe=most, labels=[0], dtype=torch.float64)
        assert counting.rows == sol.nfe.sum() <= most


def test_a_budget_holds_where_the_batch_shares_its_steps():
    model = MIXTURES["labelled"].denoiser(PATHS["linear"])
    for count in (4, 64):
        assert sample(model, "dopri5", nfe=40, seeds=range(count)).nfe.max() <= 40


# --- failures


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_network_that_breaks_is_named(name, value):
    def net(x, t):
        broken = torch.arange(len(x)).reshape(-1, 1) == 2
        return torch.where(broken & (t.reshape(-1, 1) < 10.0), value, torch.tanh(x))

    model = Denoiser(net, paths.Noise(0.02, 60.0), "noise", (2,))
    with pytest.raises(NonFiniteError, match=r"not finite at sigma=\d\.\d+ for sample 2 in step \d+;"):
        sample(model, name, seeds=range(4))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_network_a_million_times_too_stiff_ends(name):
    model, counting = counted(Denoiser(lambda x, t: 1e6 * torch.sin(1e3 * x), paths.Noise(0.02, 60.0), "noise", (2,)))
    sol = sample(model, name, seeds=range(2), max_nfe=200)
    assert not sol.converged.any()
    assert counting.rows == sol.nfe.sum() <= 400


def test_scipy_says_when_it_cannot_go_on():
    def net(x, t):
        return torch.where(t.reshape(-1, 1) > 5, torch.tanh(x), 1e18 * torch.sign(torch.sin(1e6 * x)))

    model = Denoiser(net, paths.Noise(0.02, 60.0), "noise", (2,))
    with pytest.raises(DivergedError, match="scipy_solver cannot go on: the step is too small; use a larger tol"):
        sample(model, "scipy_solver", tol=1e-3, max_nfe=100_000, dtype=torch.float64)


class Fenced:
    """A network that remembers the sigmas it was asked at, on the path `noise`."""

    def __init__(self, mixture: GaussianMixture):
        self.mixture, self.low, self.high = mixture, math.inf, 0.0

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.low, self.high = min(self.low, float(t.min())), max(self.high, float(t.max()))
        return self.mixture.denoise(x, t)[1].to(x.dtype)


@pytest.mark.parametrize("name", ADAPTIVE)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    std=st.floats(1e-3, 1.0),
    log_tol=st.floats(-5, 0),
    log_low=st.floats(-3, 1),
    decades=st.floats(0.05, 5),
    up=st.booleans(),
    first=st.none() | st.floats(1e-6, 10.0),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_it_never_leaves_the_interval_and_always_ends(name, seed, std, log_tol, log_low, decades, up, first, dtype):
    net = Fenced(GaussianMixture(normal(4, 3, seed=seed), std))
    low, high = 10**log_low, 10 ** (log_low + decades)
    model = Denoiser(net, paths.Noise(low, high), "noise", (3,), dtype=torch.float64)  # which times are exact in
    begin, end = (low, high) if up else (high, low)
    x = begin * normal(3, 3, seed=seed + 1).to(dtype)
    found = carry(model, name, f64([begin, end]), Control(10**log_tol, 300, first), x)
    assert low * (1 - 1e-9) <= net.low <= net.high <= high * (1 + 1e-9)
    # xbar - D is a mean of (xbar - m_k) sigma^2 / (s^2 + sigma^2): |xbar| + max |m_k| grows no faster than sigma does.
    bound = (x.norm(dim=1) + net.mixture.means.norm(dim=1).max()) * max(1.0, end / begin)
    assert (found.x.norm(dim=1) <= 1.5 * bound).all()
    for row in found.sigmas:
        visited = row[~row.isnan()]
        assert (visited[0], visited[-1]) == (begin, end)
        assert (visited.diff() * (end - begin) > 0).all()
    assert found.nfe.max() <= 300
    assert found.converged.all() or found.nfe.max() > 290


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tol": 0.0}, "tol=0.0 must be a finite number of at least 1e-06 with a float32 state; use tol=0.01"),
        ({"tol": math.inf}, "tol=inf must be"),
        ({"tol": True}, "tol=True must be"),
        ({"first_step": "0.1"}, "first_step='0.1' must be a number > 0"),
        ({"final": "end", "grid": [10.0, 0.0]}, "final='end' is unknown; choose 'denoise' or 'sigma_min'"),
        (
            {"grid": [0.005, 0.0]},
            "cannot tell where between sigma=0.005 and 0 to denoise, with a sigma_min of .*; give three sigmas, as in",
        ),
        ({"tol": math.nan}, "tol=nan must be"),
        ({"tol": 1e-8}, "tol=1e-08 must be"),
        ({"tol": "0.1"}, "tol='0.1' must be"),
        ({"max_nfe": 0}, "max_nfe=0 must be a whole number >= 1"),
        ({"first_step": 0.0}, "first_step=0.0 must be a number > 0"),
        ({"nfe": 10, "tol": 0.1}, "nfe=10 and tol=0.1 contradict each other; give one"),
        ({"nfe": 1}, "nfe=1 is too small: even at tol=1 a sample costs .*; use nfe >= "),
        ({"grid": "uniform"}, "chooses its steps; leave grid='uniform' out"),
        ({"grid": [10.0, 5.0, 1.0, 0.0]}, "chooses its steps; give the first and the last sigma, not a grid of 4"),
    ],
)
def test_what_cannot_be_is_said(name, arguments, message):
    model, counting = counted(MIXTURES["two modes"].denoiser(PATHS["linear"]))
    with pytest.raises(SampleError, match=message):
        sample(model, name, **arguments)
    assert counting.rows == 0 or "nfe" in arguments


def test_a_method_on_a_grid_has_no_tolerance():
    model = MIXTURES["two modes"].denoiser(PATHS["linear"])
    for name in ("tol", "max_nfe", "first_step"):
        with pytest.raises(
            SampleError, match=rf"^{name}=1 is for adaptive methods \(adaptive, dopri5, .*; ddim takes nfe"
        ):
            sample(model, "ddim", **{name: 1})


def test_a_model_without_a_range_needs_one():
    model = Denoiser(lambda x, t: x, paths.noise, "noise", (2,))
    with pytest.raises(DDIMError, match="adaptive needs a finite range of sigma, this model's is"):
        sample(model, "adaptive")
