"""Every method on a grid: its order, its cost, both directions, any model. A new row of `METHODS` is tested at once."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest
import torch

import ddim_ode
from ddim_ode import METHODS, DDIMError, paths
from ddim_ode.grids import make_grid
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import Guided
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.planning.inputs import SampleError
from ddim_ode.sampling import sample
from ddim_ode.solvers import Method, MethodError, adams, exponential, integrate
from ddim_ode.solvers.exponential import Adams, Exponential
from ddim_ode.solvers.weights import BASES, exact
from tests.helpers.mixtures import labelled, two_modes
from tests.helpers.networks import Counting
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64

LOW, HIGH = 0.3, 0.9  # where the two modes part, and where no term of an error is small by chance
MODES = two_modes()
MODEL = MODES.denoiser(paths.Flow(LOW, HIGH))
MIXTURE = labelled()
FIXED = {name: method for name, method in METHODS.items() if method.deterministic and not method.adaptive}
#: Those that step in sigma by more than one slope have terms of size 20000 that cancel.
FLOAT32 = [k for k, m in FIXED.items() if isinstance(m.solver, Adams) or (m.path != paths.noise and k != "edict")]
#: EDICT draws its two chains together by a constant factor a step, and apart on the way up: many steps do not converge.
#: Where sigma falls a thousandfold in one step, what one chain says of the other is not to the point either.
SOUND = [name for name in FIXED if name != "edict"]


def own_grid(method: Method, n: int, sigma0: float, sigma1: float) -> torch.Tensor:
    """n equal steps in the variable that the method thinks in."""
    solver, path = method.solver, method.path
    if isinstance(solver, Exponential):
        to, back = (lambda x, f=f: f(MODEL.path, x) for f in BASES[solver.basis])
    else:
        to, back = path.u, path.sigma
    ends = to(f64([sigma0, sigma1]))
    sigmas = back(torch.linspace(float(ends[0]), float(ends[1]), n + 1, dtype=torch.float64))
    return torch.cat([f64([sigma0]), sigmas[1:-1], f64([sigma1])])


def run(method: Method, n: int, sigma0: float, sigma1: float) -> torch.Tensor:
    ode = ProbabilityFlow(MODEL, method.path, (LOW / 2, HIGH * 2))
    return integrate(ode, method.solver, own_grid(method, n, sigma0, sigma1), MODES.sample(16, seed=0, sigma=sigma0))


@cache
def truth(sigma0: float, sigma1: float) -> torch.Tensor:
    return run(METHODS["rk4"], 2000, sigma0, sigma1)


def shown_order(method: Method, steps: list[int], sigma0: float, sigma1: float) -> float:
    """The slope of log error against log step."""
    reference = truth(sigma0, sigma1)
    errors = [(run(method, n, sigma0, sigma1) - reference).square().mean().sqrt().item() for n in steps]
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize("name", FIXED)
def test_a_method_shows_the_order_it_declares(name):
    method = METHODS[name]
    assert shown_order(method, [40, 80, 160, 320, 640], HIGH, LOW) == pytest.approx(method.order, abs=0.15)


@pytest.mark.parametrize("name", SOUND)
def test_and_upwards_as_well(name):
    method = METHODS[name]
    assert shown_order(method, [40, 80, 160, 320], LOW, HIGH) == pytest.approx(method.order, abs=0.15)


@pytest.mark.parametrize("basis", ["sigma", "log_snr", "angle", "timestep"])
@pytest.mark.parametrize("path", ["noise", "data", "angle", "flow"])
@pytest.mark.parametrize(("order", "corrector"), [(3, False), (4, True)])
def test_adams_keeps_its_order_on_any_path_in_any_basis(order, corrector, path, basis):
    method = adams(order, path, basis, corrector)
    assert method.order == order
    assert shown_order(method, [20, 40, 80, 160, 320], HIGH, LOW) > order - 0.3


def test_a_simplified_moment_is_what_costs_dpmpp_3m_an_order():
    """Its start is not to blame: with one that supports order 3, the factor alone keeps it at 2."""
    steps = [40, 80, 160, 320]
    started = dataclasses.replace(METHODS["dpmpp_3m"].solver, start=adams(3).solver.start, lower_final=0)
    lost = dataclasses.replace(METHODS["dpmpp_3m"], solver=started)
    kept = dataclasses.replace(lost, solver=dataclasses.replace(started, rule=exact))
    assert shown_order(lost, steps, HIGH, LOW) == pytest.approx(2, abs=0.15)
    assert shown_order(kept, steps, HIGH, LOW) == pytest.approx(3, abs=0.15)


# --- cost


def measured(method: Method, model, sigmas: torch.Tensor) -> int:
    counting = Counting(model.net)
    sol = sample(dataclasses.replace(model, net=counting), method, grid=sigmas, seeds=range(3))
    assert sol.nfe.tolist() == [counting.rows // 3] * 3
    return counting.rows // 3


@pytest.mark.parametrize("final", ["denoise", "sigma_min"])
@pytest.mark.parametrize("name", FIXED)
def test_a_budget_is_spent_as_far_as_the_method_can(name, final):
    method, model = METHODS[name], MIXTURE.denoiser(PATHS["linear"])
    grids = [make_grid(method.grid, model.path, n, final) for n in range(1, 26)]
    costs = [measured(method, model, sigmas) for sigmas in grids]
    steps_of_2, steps_of_3 = costs[1:3]
    assert steps_of_3 - steps_of_2 == method.evaluations
    for nfe in range(1, 26):
        affordable = [cost for cost in costs if cost <= nfe]
        counting = Counting(model.net)
        counted = dataclasses.replace(model, net=counting)
        if not affordable:
            with pytest.raises(SampleError, match=f"nfe={nfe} is too small.*use nfe >= {min(costs)}$"):
                sample(counted, name, nfe=nfe, final=final)
            assert counting.rows == 0
        else:
            sol = sample(counted, name, nfe=nfe, final=final, seeds=range(3))
            assert sol.nfe.tolist() == [max(affordable)] * 3 == [counting.rows // 3] * 3


@pytest.mark.parametrize("name", ["heun", "dpm_solver_3", "adams4", "rk4", "plms"])
def test_guidance_in_an_interval_is_counted_where_the_stages_are(name):
    counting = Counting(MIXTURE.denoiser(PATHS["linear"]).net)
    model = Denoiser(counting, PATHS["linear"], "noise", MIXTURE.shape, MIXTURE.num_classes)
    guided = Guided(model, 2.0, sigma_range=(0.3, 6.0))
    for nfe in range(12, 40):
        counting.rows = 0
        sol = sample(guided, name, nfe=nfe, seeds=range(2), labels=[0, 1])
        assert sol.nfe.tolist() == [counting.rows // 2] * 2
        assert nfe - 2 * METHODS[name].evaluations < counting.rows // 2 <= nfe


def test_weights_are_made_once_for_a_grid(monkeypatch):
    model, sigmas = MIXTURE.denoiser(PATHS["linear"]), [140.0, 12.0, 3.0, 0.7, 0.1, 0.0]
    made, builder = [], exponential.Builder
    monkeypatch.setattr(exponential, "Builder", lambda *of: made.append(of) or builder(*of))
    sample(model, "adams3", grid=sigmas, seeds=range(6), batch_size=1)
    assert len(made) == 1  # in six batches


# --- what they compute


def within(path: paths.Path) -> paths.Path:
    return path if path.num_timesteps else dataclasses.replace(path, sigma_min=0.02, sigma_max=60.0)


@cache
def at_sigma_min(model_path: str, name: str, nfe: int) -> torch.Tensor:
    model, noise = MIXTURE.denoiser(within(PATHS[model_path])), MIXTURE.sample(8, seed=0, sigma=1e-9)
    return sample(model, name, nfe=nfe, grid="log_snr", final="sigma_min", noise=noise, dtype=torch.float64).x


@pytest.mark.parametrize("model_path", ["linear", "cosine", "angle", "flow", "noise"])
@pytest.mark.parametrize("name", SOUND)
def test_a_method_runs_on_any_model(name, model_path):
    """Ten times the steps take most of the error away, from the model's largest sigma to its smallest."""
    exact = at_sigma_min(model_path, "rk4", 1200)
    errors = [(at_sigma_min(model_path, name, nfe) - exact).square().mean().sqrt() for nfe in (20, 200)]
    assert errors[1] < 0.2 * errors[0]
    assert errors[1] < 0.05


@pytest.mark.parametrize("name", SOUND)
def test_a_grid_may_end_below_the_models_range(name):
    model, noise = MIXTURE.denoiser(PATHS["linear"]), MIXTURE.sample(8, seed=0, sigma=1e-9)
    sigmas = torch.logspace(math.log10(140), math.log10(0.002), 61, dtype=torch.float64)
    exact = sample(model, "rk4", grid=sigmas, noise=noise, dtype=torch.float64).x
    x = sample(model, name, grid=sigmas, noise=noise, dtype=torch.float64).x
    assert (x - exact).square().mean().sqrt() < 0.05


@pytest.mark.parametrize("name", FIXED)
def test_a_sample_does_not_see_its_companions(name):
    model = MIXTURE.denoiser(PATHS["cosine"])
    whole = sample(model, name, nfe=12, seeds=range(6), dtype=torch.float64).x
    apart = sample(model, name, nfe=12, seeds=range(6), dtype=torch.float64, batch_size=1).x
    torch.testing.assert_close(apart, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", FLOAT32)
def test_a_float32_state_is_enough(name):
    """On a cosine schedule, whose first sigma is 20000, and its uniform grid.

    In equal steps of log sigma the constant weights of PLMS and iPNDM lose a little more, 3e-4.
    """
    model = MIXTURE.denoiser(PATHS["cosine"], "velocity")
    single, double = (
        sample(model, name, nfe=12, grid="uniform", seeds=range(6), dtype=d).x for d in (torch.float32, torch.float64)
    )
    assert (single - double).abs().max() < 1e-4


def test_ddim_is_the_adams_method_of_order_1_on_either_path():
    model = MIXTURE.denoiser(PATHS["linear"])
    ddim = sample(model, "ddim", nfe=9, seeds=range(4), grid="uniform", dtype=torch.float64).x
    for path in (paths.noise, paths.data):
        for basis in BASES:
            method = Method(Adams(basis), path, "uniform", 1, 1, "")
            x = sample(model, method, nfe=9, seeds=range(4), dtype=torch.float64).x
            torch.testing.assert_close(x, ddim, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model_path", ["linear", "cosine", "angle", "flow", "noise"])
def test_the_last_interval_of_adams_is_a_step_to_zero(model_path):
    """It is a better answer than xhat0, which is what the others return."""
    path = within(PATHS[model_path])
    model, sigmas = MIXTURE.denoiser(path), make_grid("trailing_angle", path, 12, "denoise")
    exact = sample(model, "rk4", nfe=2000, grid="log_snr", seeds=range(64), dtype=torch.float64).x
    method = METHODS["adams4"]
    stopping = dataclasses.replace(method, solver=dataclasses.replace(method.solver, to_zero=False))
    errors = []
    for m in (method, stopping):
        sol = sample(model, m, grid=sigmas, seeds=range(64), dtype=torch.float64)
        assert sol.nfe.tolist() == [14] * 64
        errors.append((sol.x - exact).flatten(1).square().mean(1).sqrt().median())
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("grid", ["log_snr", "karras"])
def test_adams_takes_fewer_slopes_where_the_steps_grow_too_fast(grid):
    """From sigma = 20000 down these grids crowd their first nodes together in the angle. Images are within -1..1."""
    model, method = ddim_ode.load("fashion"), METHODS["adams4"]
    careless = dataclasses.replace(method, solver=dataclasses.replace(method.solver, most=math.inf))
    x, wild = (sample(model, m, nfe=10, grid=grid, seeds=range(4), labels=3).x for m in (method, careless))
    assert x.abs().max() < 4
    assert wild.abs().max() > 20


# --- choosing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5,), "order=5 is not an order of Adams methods here; choose 1 to 4"),
        ((1, "angle", "angle", True), "order=1 is not an order.*choose 2 to 4"),
        ((2, "angel"), "unknown path 'angel'; did you mean 'angle'"),
        ((2.0,), "order=2.0 is not an order"),
        ((2, "data", "logsnr"), "unknown basis 'logsnr'; did you mean 'log_snr'"),
    ],
)
def test_what_adams_cannot_be_is_said(arguments, message):
    with pytest.raises(DDIMError, match=message):
        adams(*arguments)


def test_a_method_may_be_given_as_one():
    model = MIXTURE.denoiser(PATHS["linear"])
    named = sample(model, "adams3", nfe=7).x
    torch.testing.assert_close(sample(model, adams(3, corrector=True), nfe=7).x, named, rtol=0, atol=0)
    assert ddim_ode.adams is adams
    for wrong in (adams, METHODS["adams3"].solver, None):
        with pytest.raises(MethodError, match="give a name in METHODS, or a Method such as adams"):
            sample(model, wrong)
