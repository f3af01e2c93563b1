"""Solvers that come back: the ones on the lattice bit for bit, the published ones as their papers write them."""

import dataclasses
import math
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from ddim_ode import METHODS, paths
from ddim_ode.grids import make_grid
from ddim_ode.inversion import encode, reconstruct
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.sampling import sample
from ddim_ode.solvers import DivergedError, Reversible, Step, follow
from ddim_ode.solvers.lattice import LATTICE, LIMIT, UNIT
from ddim_ode.solvers.reversible import FixedPoint
from ddim_ode.solvers.runge_kutta import RungeKutta
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.networks import network
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64, normal, rms

REVERSIBLE = [name for name, method in METHODS.items() if method.invertible]
EXACT = ["leapfrog", "exact_heun"]
MIXTURE = labelled()
MODEL = MIXTURE.denoiser(paths.Flow(0.02, 60.0))


def there_and_back(name: str, model: Denoiser, sigmas: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What a state becomes on the way along the grid and back, and what it was; on the method's path."""
    method = METHODS[name]
    solver = method.solver
    assert isinstance(solver, Reversible)
    ode = ProbabilityFlow(model, method.path, (float(sigmas.min()), float(sigmas.max())))
    begin = solver.init(ode, sigmas, y)
    end = follow(ode, solver, sigmas, Step(y, begin))
    back = sigmas.flip(0)
    start = follow(ode, solver, back, solver.resume(ode, back, solver.keep(end.state)))
    return solver.keep(start.state)[0], solver.keep(begin)[0]


def test_these_are_the_reversible_methods():
    assert REVERSIBLE == ["leapfrog", "exact_heun", "reversible_heun", "bdia", "belm", "edict"]
    assert [name for name in REVERSIBLE if METHODS[name].exact] == EXACT


monotone = st.lists(st.floats(-4, 4), min_size=2, max_size=12, unique_by=lambda x: round(x, 6)).map(
    lambda logs: f64(sorted(10**x for x in logs))
)


@given(sigmas=monotone, upwards=st.booleans(), seed=st.integers(0, 2**32 - 1), name=st.sampled_from(EXACT))
def test_the_same_integers_on_any_grid(sigmas, upwards, seed, name):
    """The function need not even be a denoiser."""
    sigmas = sigmas if upwards else sigmas.flip(0)
    wild = Denoiser(lambda x, t: torch.sin(7 * x) + t.sin().reshape(-1, 1), paths.noise, "velocity", (5,))
    y = normal(3, 5, seed=seed)
    found, wanted = there_and_back(name, wild, sigmas, y)
    assert found.dtype == torch.int64
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("grid", ["uniform", "quadratic", "karras", "log_snr", "near_image"])
@pytest.mark.parametrize("name", EXACT)
def test_the_same_integers_of_the_network_that_ships(name, grid):
    model = network()
    sigmas = make_grid(grid, model.path, 6, "sigma_min").flip(0)
    found, wanted = there_and_back(name, model, sigmas, normal(4, *model.shape, seed=0))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("name", "worst"), [("reversible_heun", 1e-10), ("bdia", 1e-10), ("belm", 1e-4), ("edict", 1e-6)]
)
def test_the_others_come_back_up_to_what_rounding_becomes(name, worst):
    """In float64, of 100 steps; EDICT and O-BELM multiply it by up to 1e9 on the way."""
    sigmas = torch.linspace(0.3, 1.5, 101, dtype=torch.float64)
    found, wanted = there_and_back(name, MODEL, sigmas, MIXTURE.sample(8, seed=0, sigma=0.3))
    assert 0 < (found - wanted).abs().max() < worst


def test_all_of_them_do_well_on_the_schedule_and_the_grid_they_were_made_for():
    """DDPM's linear one, which ends at sigma = 157, in even timesteps and float32; leapfrog's latents are nearest."""
    model, x = MIXTURE.denoiser(PATHS["linear"]), MIXTURE.sample(8, seed=0, sigma=0.01).float()
    exact = encode(model, x.double(), "adams4", nfe=800, grid="log_snr", dtype=torch.float64).noise
    errors = {}
    for name, nfe in {"edict": 100, "belm": 50, "ddim": 50, "leapfrog": 50}.items():
        found = reconstruct(model, x, name, nfe=nfe, grid="uniform")
        errors[name] = float(rms(found.latent.noise - exact).median())
        assert found.mse.max() < 1e-10 or name == "ddim"
    assert errors["leapfrog"] < 0.5 * errors["belm"] < errors["edict"] < errors["ddim"]


@pytest.mark.parametrize("name", EXACT)
def test_a_network_that_changes_its_mind_is_noticed(name):
    calls = []

    def moody(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return torch.sin(7 * x) + 1e-6 * len(calls)

    found = reconstruct(Denoiser(moody, paths.Flow(0.02, 60.0), "velocity", (6,)), normal(2, 6, seed=0), name, nfe=10)
    assert not found.bit_exact.any()
    assert 0 < found.max_error.max() < 0.1


# --- the lattice


def test_rounding_is_odd_and_fine_enough():
    dy = (normal(1000, seed=0) * 10 ** normal(1000, seed=1)).clamp(-LIMIT / 2, LIMIT / 2)
    assert torch.equal(LATTICE.increment(-dy), -LATTICE.increment(dy))
    assert (LATTICE.leave(LATTICE.enter(dy)) - dy).abs().max() <= UNIT / 2
    small = 2.0**-27 * (1 + normal(1000, seed=2).abs()) * 2.0 ** (torch.arange(1000) % 27)
    x = torch.cat([torch.arange(256) / 127.5 - 1, small]).float()
    assert torch.equal(LATTICE.leave(LATTICE.enter(x)).float(), x)


@pytest.mark.parametrize("size", [1e4, -1e4, math.inf, math.nan])
@pytest.mark.parametrize("name", EXACT)
def test_overflow_is_an_error_and_never_a_wrap(name, size):
    model = Denoiser(lambda x, t: torch.full_like(x, size), paths.noise, "velocity", (2,))
    sigmas = f64([0.1, 3.0, 60.0])
    if math.isfinite(size):
        line = one_line(DivergedError, sample, model, name, grid=sigmas.flip(0))
        assert line.startswith("the state leaves the range of fixed-point numbers, +-256: found ")
        assert line.endswith("; use more steps, or a method in floating point")
    else:
        one_line(DivergedError, LATTICE.enter, f64([size]))


@pytest.mark.parametrize("name", EXACT)
def test_a_state_that_grows_by_small_steps_is_stopped_too(name):
    model = Denoiser(lambda x, t: torch.full_like(x, 1e4), paths.noise, "velocity", (2,))
    sigmas = torch.linspace(60, 1, 2000, dtype=torch.float64)
    assert "leaves the range" in one_line(DivergedError, sample, model, name, grid=sigmas, start=torch.zeros(1, 2))


# --- the published methods, from their papers, on the states x = xbar / sqrt(1 + sigma^2) of DDPM


def vp(sigma: float) -> tuple[float, float]:
    return 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)


def noise_at(x: Tensor, sigma: float) -> Tensor:
    return MIXTURE.denoise(x / vp(sigma)[0], sigma)[1]


def ddim(x: Tensor, eps: Tensor, sigma0: float, sigma1: float) -> Tensor:
    """The step of Song et al. 2021, Eq. 12, in either direction."""
    (a0, b0), (a1, b1) = vp(sigma0), vp(sigma1)
    return a1 / a0 * (x - b0 * eps) + b1 * eps


def published_bdia(x: Tensor, grid: list[float]) -> Tensor:
    """z(i-1) = z(i+1) + [DDIM from z(i) onwards] - [DDIM from z(i) back]."""
    before, now = x, ddim(x, noise_at(x, grid[0]), grid[0], grid[1])
    for back, sigma, onwards in zip(grid, grid[1:], grid[2:], strict=False):
        eps = noise_at(now, sigma)
        before, now = now, before + ddim(now, eps, sigma, onwards) - ddim(now, eps, sigma, back)
    return now


def published_belm(x: Tensor, grid: list[float]) -> Tensor:
    """O-BELM in its alphas and steps h of sigma."""
    before, now = x, ddim(x, noise_at(x, grid[0]), grid[0], grid[1])
    for back, sigma, onwards in zip(grid, grid[1:], grid[2:], strict=False):
        h, h_back = sigma - onwards, back - sigma
        ratio = h**2 / h_back**2
        eps = noise_at(now, sigma)
        new = ratio * vp(onwards)[0] / vp(back)[0] * before
        new += (1 - ratio) * vp(onwards)[0] / vp(sigma)[0] * now
        new -= h * (h + h_back) / h_back * vp(onwards)[0] * eps
        before, now = now, new
    return now


def published_edict(x: Tensor, grid: list[float], p: float = 0.93) -> Tensor:
    """Two chains, the second with the first's new state and the old time; which is first changes from step to step."""
    chains = [x, x]
    for i, (sigma0, sigma1) in enumerate(pairwise(grid)):
        for k in (i % 2, 1 - i % 2):
            chains[k] = ddim_like(chains[k], noise_at(chains[1 - k], sigma0), sigma0, sigma1)
        chains[0] = p * chains[0] + (1 - p) * chains[1]
        chains[1] = p * chains[1] + (1 - p) * chains[0]
    return chains[0]


def ddim_like(x: Tensor, eps: Tensor, sigma0: float, sigma1: float) -> Tensor:
    """a x + b eps, with the a and b of a DDIM step."""
    (a0, b0), (a1, b1) = vp(sigma0), vp(sigma1)
    return a1 / a0 * x + (b1 - a1 / a0 * b0) * eps


PUBLISHED = {"bdia": published_bdia, "belm": published_belm, "edict": published_edict}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_method_is_its_formula(name):
    grid = [20.0, 8.0, 3.0, 1.2, 0.5, 0.2, 0.02]
    noise = normal(4, *MIXTURE.shape, seed=0)
    start = noise / vp(grid[0])[0]
    expected = PUBLISHED[name](noise, grid) / vp(grid[-1])[0]
    found = sample(MIXTURE.denoiser(PATHS["linear"]), name, grid=grid, start=start, dtype=torch.float64)
    torch.testing.assert_close(found.x, expected, rtol=1e-10, atol=1e-10)


def test_reversible_heun_is_the_same_in_integers_and_in_floats():
    exact, floats = (
        sample(MODEL, name, nfe=12, seeds=range(4), dtype=torch.float64).x for name in ("exact_heun", "reversible_heun")
    )
    torch.testing.assert_close(exact, floats, rtol=0, atol=1e-12)


def test_fixed_point_is_ddim_downwards_and_its_inverse_upwards():
    noise = normal(6, *MIXTURE.shape, seed=0)
    ours, theirs = (
        sample(MODEL, name, grid="near_image", nfe=12, noise=noise, dtype=torch.float64).x
        for name in ("fixed_point", "ddim")
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    x = MIXTURE.sample(6, seed=0, sigma=0.02)
    errors = []
    for iterations in (1, 2, 5, 10):
        solver = FixedPoint(RungeKutta("euler"), iterations)
        method = dataclasses.replace(METHODS["fixed_point"], solver=solver)
        found = reconstruct(
            MODEL, x, method, grid=make_grid("near_image", MODEL.path, 20, "sigma_min").tolist(), dtype=torch.float64
        )
        assert found.latent.nfe.tolist() == [20 * iterations] * 6
        errors.append(float(rms(found.solution.x - x).max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6
