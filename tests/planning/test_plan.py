"""Plans: what a run is given and gives back, the way back, budgets of adaptive methods, and batches."""

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddim_ode import METHODS, paths
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.guidance import GuidanceError, Guided
from ddim_ode.planning.inputs import SampleError, seeded_noise
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import AdaptivePlan, GridPlan, Plan, prepare
from ddim_ode.sampling import sample
from ddim_ode.solvers.lattice import LATTICE
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled

LOW, HIGH = 0.02, 60.0
MIXTURE = labelled()
MODEL = MIXTURE.denoiser(paths.Flow(LOW, HIGH))
LABELS = [0, 1, 2, 1]
ON_GRIDS = ["ddim", "adams4", "heun_angle", "rk4", "unipc_2", "bdia", "reversible_heun", "leapfrog", "exact_heun"]
REVERSIBLE = [name for name, method in METHODS.items() if method.invertible]
EXACT = [name for name in REVERSIBLE if METHODS[name].exact]


def begin(plan: Plan, count: int = 4) -> Tensor:
    """Where samples of seeds 0.. start."""
    latents = seeded_noise(range(count), plan.model.shape).to(plan.dtype)
    return float(plan.model.path.prior_std(plan.sigmas[0])) * latents


# --- a run


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ON_GRIDS)
def test_a_run_along_a_grid_is_what_sample_does(name, dtype, guidance):
    options = SolveOptions(method=name, nfe=16, guidance=guidance, dtype=dtype)
    plan = prepare(MODEL, options, 4, labels=LABELS)
    assert isinstance(plan, GridPlan)
    found = plan.run(plan.flow(), begin(plan))
    sol = sample(MODEL, name, nfe=16, seeds=range(4), labels=LABELS, guidance=guidance, dtype=dtype)
    assert torch.equal(found.x.to(dtype), sol.x)
    assert torch.equal(plan.sigmas, sol.sigmas)
    assert found.nfe.tolist() == sol.nfe.tolist()
    assert found.steps.tolist() == sol.steps.tolist() == [plan.steps] * 4 == [len(plan.sigmas) - 1] * 4
    assert found.converged.all()
    assert (plan.tol, plan.max_nfe) == (None, None)


@pytest.mark.parametrize("name", ["adaptive", "dopri5"])
def test_an_adaptive_run_is_what_sample_does(name):
    options = SolveOptions(method=name, tol=0.02, max_nfe=500, dtype=torch.float64)
    plan = prepare(MODEL, options, 4, labels=LABELS)
    assert isinstance(plan, AdaptivePlan)
    assert (plan.steps, plan.tol, plan.max_nfe) == (None, 0.02, 500)
    assert plan.sigmas.tolist() == [HIGH, LOW, 0.0]
    found = plan.run(plan.flow(), begin(plan))
    sol = sample(MODEL, name, tol=0.02, max_nfe=500, seeds=range(4), labels=LABELS, dtype=torch.float64)
    assert torch.equal(found.x, sol.x)
    assert found.nfe.tolist() == sol.nfe.tolist()
    assert found.steps.tolist() == sol.steps.tolist()
    assert sol.tol == 0.02


@pytest.mark.parametrize(("name", "choices"), [("rk4", {"nfe": 200}), ("exact_heun", {"nfe": 500}), ("dopri5", {})])
def test_a_run_follows_the_flow_of_a_gaussian_either_way(name, choices):
    """x0 ~ N(0, s^2): the flow from one sigma to another multiplies by the ratio of sqrt(s^2 + sigma^2)."""
    s = 0.5
    model = GaussianMixture(torch.zeros(1, 4), s).denoiser(paths.Flow(LOW, HIGH))
    steering = choices or {"tol": 1e-5}
    options = SolveOptions(method=name, final="sigma_min", dtype=torch.float64, **steering)
    ratio = math.sqrt((s**2 + LOW**2) / (s**2 + HIGH**2))
    for upward, factor in ((False, ratio), (True, 1 / ratio)):
        plan = prepare(model, options, 3, upward=upward)
        assert plan.sigmas[[0, -1]].tolist() == pytest.approx([LOW, HIGH] if upward else [HIGH, LOW], rel=1e-12)
        start = begin(plan, 3) if not upward else seeded_noise(range(3), (4,)).double() * s
        torch.testing.assert_close(plan.run(plan.flow(), start).x, factor * start, rtol=1e-3, atol=1e-6)


# --- the way back


@pytest.mark.parametrize("upward", [False, True])
@pytest.mark.parametrize("name", EXACT)
def test_an_exact_method_resumes_to_the_bits_that_it_began_with(name, upward):
    options = SolveOptions(method=name, nfe=9, final="sigma_min", dtype=torch.float64)
    plan = prepare(MODEL, options, 4, labels=LABELS, upward=upward)
    start = MIXTURE.sample(4, seed=0, sigma=LOW).float().double() if upward else begin(plan)
    there = plan.run(plan.flow(), start)
    again = plan.backwards()
    back = again.resume(again.flow(), there.kept)
    ode = plan.flow()
    entered = LATTICE.enter(ode.enter(start, plan.sigmas[0]))
    assert torch.equal(back.kept[0], entered)
    assert torch.equal(back.x, ode.leave(LATTICE.leave(entered), plan.sigmas[0]))
    assert torch.equal(back.x.float(), start.float())
    assert (there.x - start).abs().max() > 0.1  # it has been somewhere else


@pytest.mark.parametrize("name", ["reversible_heun", "bdia"])
def test_a_reversible_method_in_floats_resumes_up_to_rounding(name):
    plan = prepare(MODEL, SolveOptions(method=name, nfe=9, dtype=torch.float64), 4, labels=LABELS, upward=False)
    plan = plan.above_zero()
    there = plan.run(plan.flow(), begin(plan))
    again = plan.backwards()
    torch.testing.assert_close(again.resume(again.flow(), there.kept).x, begin(plan), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["ddim", "rk4", "dopri5"])
def test_another_method_resumes_from_the_state_alone(name):
    steering: dict[str, Any] = {"tol": 0.01} if METHODS[name].adaptive else {"nfe": 9}
    options = SolveOptions(method=name, final="sigma_min", dtype=torch.float64, **steering)
    plan = prepare(MODEL, options, 4, labels=LABELS)
    start = begin(plan)
    assert torch.equal(plan.resume(plan.flow(), (start,)).x, plan.run(plan.flow(), start).x)


@pytest.mark.parametrize("name", ["ddim", "adams4", "rk4", "adaptive", "dopri5", "sde_euler"])
def test_what_an_ordinary_method_keeps_is_where_it_is(name):
    steering: dict[str, Any] = {"tol": 0.05} if METHODS[name].adaptive else {"nfe": 8}
    plan = prepare(MODEL, SolveOptions(method=name, **steering), 4, labels=LABELS)
    found = plan.run(plan.flow(), begin(plan))
    assert len(found.kept) == 1
    assert torch.equal(found.kept[0], found.x)


@pytest.mark.parametrize("name", REVERSIBLE)
def test_what_a_reversible_method_keeps_is_its_pair(name):
    """The first of the two is where it is, in its own coordinates; integers of an exact method."""
    plan = prepare(MODEL, SolveOptions(method=name, nfe=8, final="sigma_min", dtype=torch.float64), 4, labels=LABELS)
    ode = plan.flow()
    found = plan.run(ode, begin(plan))
    assert [state.shape for state in found.kept] == [found.x.shape] * 2
    assert {state.dtype for state in found.kept} == {torch.int64 if name in EXACT else torch.float64}
    y = LATTICE.leave(found.kept[0]) if name in EXACT else found.kept[0]
    torch.testing.assert_close(ode.leave(y, plan.sigmas[-1]), found.x, rtol=1e-14, atol=1e-14)
    assert not torch.equal(*found.kept)


def test_backwards_turns_the_sigmas_around():
    plan = prepare(MODEL, SolveOptions(method="adams4", nfe=9, final="sigma_min"), 4, labels=LABELS)
    again = plan.backwards()
    assert torch.equal(again.sigmas, plan.sigmas.flip(0))
    assert again.steps == plan.steps
    assert torch.equal(again.backwards().sigmas, plan.sigmas)
    assert torch.equal(again.labels, torch.tensor(LABELS))


def test_backwards_an_adaptive_method_may_cost_whatever_it_costs():
    options = SolveOptions(method="adaptive", tol=1e-3, max_nfe=20, first_step=0.01, final="sigma_min")
    plan = prepare(MODEL, options, 4)
    again = plan.backwards()
    assert again.sigmas.tolist() == [LOW, HIGH]
    assert again.control == (1e-3, sys.maxsize, 0.01)
    x = MIXTURE.sample(4, seed=0, sigma=LOW).float()
    assert not replace(again, control=plan.control).run(again.flow(), x).converged.any()
    assert again.run(again.flow(), x).converged.all()


@pytest.mark.parametrize("method", ["adams4", "adaptive"])
def test_above_zero_leaves_the_denoising_out(method):
    plan = prepare(MODEL, SolveOptions(method=method, dtype=torch.float64), 4, labels=LABELS)
    above = plan.above_zero()
    assert plan.sigmas[-1] == 0
    assert torch.equal(above.sigmas, plan.sigmas[:-1])
    assert torch.equal(above.above_zero().sigmas, above.sigmas)
    assert type(above) is type(plan)
    # Of a method that steps to sigma = 0 the last step is not a denoising, so ask one that does not.
    ddim = prepare(MODEL, SolveOptions(nfe=9, dtype=torch.float64), 4, labels=LABELS)
    short = ddim.above_zero()
    end = short.run(short.flow(), begin(ddim)).x
    denoised = MODEL(end, short.sigmas[-1], torch.tensor(LABELS)).data
    torch.testing.assert_close(ddim.run(ddim.flow(), begin(ddim)).x, denoised, rtol=1e-12, atol=1e-12)


# --- the tolerance of a budget


@pytest.mark.parametrize("nfe", [10, 17, 26])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_budget_finds_the_tolerance_that_it_pays(guidance, nfe):
    nfe = int(nfe * guidance)
    plan = prepare(MODEL, SolveOptions(method="adaptive", nfe=nfe, guidance=guidance), 3, labels=[1, 0, 2])
    labels = torch.arange(8) % 3

    def mean_cost(tol: float) -> float:
        found = sample(MODEL, "adaptive", tol=tol, seeds=range(8), labels=labels, guidance=guidance)
        return float(found.nfe.double().mean())

    assert mean_cost(plan.tol) <= nfe
    assert mean_cost(plan.tol * 10**-0.125) > nfe  # an eighth of a decade less is too much


def test_the_tolerance_of_a_budget_is_a_function_of_model_and_budget():
    options = SolveOptions(method="adaptive", nfe=12)
    tol = prepare(MODEL, options, 1, labels=0).tol
    for count, labels, seeds, batch_size in [(5, [2, 2, 1, 0, 2], range(100, 105), 2), (9, 1, range(9), 9)]:
        other = prepare(MODEL, replace(options, batch_size=batch_size), count, labels=labels, seeds=seeds)
        assert other.tol == tol
        assert torch.equal(other.labels, torch.tensor(labels).expand(count))  # those of the samples, once more
        assert (other.batch_size, other.seeds) == (batch_size, tuple(seeds))
    assert prepare(MODEL, replace(options, nfe=20), 1, labels=0).tol < tol
    assert sample(MODEL, "adaptive", nfe=12, seeds=[7], labels=2).tol == tol
    assert prepare(MODEL, options, 1).tol == prepare(MODEL, options, 6).tol  # without labels too


# --- what it refuses


def test_a_plan_that_cannot_be_is_refused():
    guided = Guided(MODEL, 2.0)
    line = one_line(SampleError, prepare, guided, SolveOptions(guidance=3.0), 2, labels=0)
    assert line == "the model is guided already, at scale 2; leave guidance=3 out"
    line = one_line(SampleError, prepare, MODEL, SolveOptions(grid=[3.0, 1.0, 0.0]), 2, upward=True)
    assert line == "the grid ends at sigma=0, where no data lie; end at the model's sigma_min"
    line = one_line(SampleError, prepare, MODEL, SolveOptions(method="adaptive", final="denoise"), 2, upward=True)
    assert line == "the grid ends at sigma=0, where no data lie; end at the model's sigma_min"
    budget = SolveOptions(method="adaptive", nfe=30, final="sigma_min")
    line = one_line(SampleError, prepare, MODEL, budget, 2, upward=True)
    assert line == "nfe=30: adaptive finds the tolerance of a budget for sampling only; give tol"
    little = SolveOptions(method="adaptive", max_nfe=1)
    line = one_line(SampleError, prepare, guided, little, 2, labels=0)
    assert line == "max_nfe=1 is too small: one step costs 2 evaluations; use max_nfe >= 2"
    assert prepare(MODEL, little, 2).max_nfe == 1
    line = one_line(SampleError, prepare, MODEL, SolveOptions(), 2, labels=[0, 1, 2])
    assert line == "labels have shape (3,); give one label, or one a sample (2)"


def test_guidance_of_a_model_without_classes_is_refused():
    plain = GaussianMixture(torch.zeros(1, 4), 1.0).denoiser(paths.Flow(LOW, HIGH))
    line = one_line(GuidanceError, prepare, plain, SolveOptions(guidance=2.0), 2)
    assert line == "guidance=2 needs a class-conditional model; use guidance=1"


def test_a_plan_guides_the_model_in_the_range_asked_for():
    plan = prepare(MODEL, SolveOptions(guidance=2.0, guidance_range=np.array([0.5, 2.0])), 2, labels=0)
    assert plan.model == Guided(MODEL, 2.0, (0.5, 2.0))
    assert prepare(MODEL, SolveOptions(guidance=2.0), 2, labels=0).model == Guided(MODEL, 2.0)
    assert prepare(MODEL, SolveOptions(), 2, labels=0).model is MODEL
