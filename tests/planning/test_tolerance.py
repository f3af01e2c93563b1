"""Where adaptive methods begin and end, and the tolerance of a budget where its cost is a formula."""

import math

import pytest
import torch

from ddim_ode import paths
from ddim_ode.grids import GridError
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import LEAST_TOL, SolveOptions
from ddim_ode.planning.tolerance import ends_for, tolerance_for
from tests.helpers.assertions import one_line
from tests.helpers.networks import Recording


def model_on(path: paths.Path) -> Denoiser:
    return Denoiser(Recording(), path, "noise", (2,))


MODEL = model_on(paths.Flow(0.02, 60.0))
ENDLESS = model_on(paths.noise)  # sigma from 0 to infinity


def ends(model: Denoiser, **choices: object) -> list[float]:
    found = ends_for(model, SolveOptions(method="adaptive", **choices))
    assert found.dtype == torch.float64
    return found.tolist()


# --- ends


def test_without_a_grid_they_are_the_models():
    assert ends(MODEL) == [60.0, 0.02, 0.0]
    assert ends(MODEL, final="sigma_min") == [60.0, 0.02]


def test_a_grid_says_where_to_begin_and_to_end():
    assert ends(MODEL, grid=[30.0, 0.5]) == [30.0, 0.5]  # whatever `final` is
    assert ends(MODEL, grid=[30.0, 0.5], final="sigma_min") == [30.0, 0.5]
    assert ends(MODEL, grid=[30.0, 0.001]) == [30.0, 0.001]  # below the model's sigma_min
    assert ends(MODEL, grid=[30.0, 0.5, 0.0]) == [30.0, 0.5, 0.0]
    assert ends(ENDLESS, grid=[1e6, 1e-6, 0.0]) == [1e6, 1e-6, 0.0]


def test_a_grid_to_zero_denoises_at_the_models_smallest_sigma():
    assert ends(MODEL, grid=[30.0, 0.0]) == [30.0, 0.02, 0.0]


REFUSED = {
    "endless": (ENDLESS, None, SampleError, "adaptive needs a finite range of sigma, this model's is [0, inf]"),
    "no end above 0": (
        ENDLESS,
        [5.0, 0.0],
        SampleError,
        "adaptive cannot tell where between sigma=5 and 0 to denoise, with a sigma_min of 0; give three sigmas, as in"
        " 5, 0.05, 0",
    ),
    "begins below sigma_min": (MODEL, [0.01, 0.0], SampleError, "between sigma=0.01 and 0 to denoise"),
    "begins at sigma_min": (MODEL, [0.02, 0.0], SampleError, "between sigma=0.02 and 0 to denoise"),
    "three above 0": (
        MODEL,
        [5.0, 1.0, 0.5],
        SampleError,
        "adaptive chooses its steps; give the first and the last sigma, not a grid of 3",
    ),
    "four": (MODEL, [5.0, 1.0, 0.5, 0.0], SampleError, "not a grid of 4"),
    "begins too high": (MODEL, [61.0, 0.5], GridError, "the grid starts at sigma=61; the model was trained up to 60"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_ends_that_cannot_be_are_refused(case):
    model, grid, error, message = REFUSED[case]
    assert message in one_line(error, ends, model, grid=grid)


# --- the tolerance of a budget


class Cost:
    """Evaluations that grow by `each` a decade of tolerance, from `begin` at tol = 1."""

    def __init__(self, begin: float, each: float):
        self.begin, self.each = begin, each
        self.asked: list[tuple[float, int]] = []

    def __call__(self, tol: float, most: int) -> float:
        self.asked.append((tol, most))
        spent = self.begin - self.each * math.log10(tol)
        return spent if spent <= most else math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nfe", [10, 11, 15, 20, 25, 32, 40, 51])
def test_it_is_the_largest_accuracy_that_the_budget_pays_to_an_eighth_of_a_decade(nfe, dtype):
    eighths = math.floor(8 * (nfe - 10) / 10)  # cost = 10 + 10 decades <= nfe
    assert tolerance_for(nfe, dtype, Cost(10, 10)) == pytest.approx(10 ** (-eighths / 8), rel=1e-12)


@pytest.mark.parametrize("dtype", LEAST_TOL)
def test_it_is_never_below_what_the_state_can_hold(dtype):
    for each in (0.0, 0.1):
        found = tolerance_for(1000, dtype, Cost(1, each))
        assert found == pytest.approx(LEAST_TOL[dtype], rel=1e-9)
        assert SolveOptions(method="adaptive", tol=found, dtype=dtype).control.tol == found


def test_just_above_the_least_tolerance_it_is_still_affordable():
    for nfe in range(60, 80):  # 68 is the cost of 10^-5.8
        assert Cost(10, 10)(tolerance_for(nfe, torch.float32, Cost(10, 10)), 1000) <= nfe


def test_a_cost_without_an_end_is_given_up_soon():
    cost = Cost(10, 10)
    tolerance_for(20, torch.float32, cost)
    assert {most for _, most in cost.asked} == {3 * 20 + 100}
    assert len(cost.asked) < 10


def test_a_budget_that_the_coarsest_tolerance_exceeds_is_refused():
    line = one_line(SampleError, tolerance_for, 9, torch.float32, Cost(10.2, 10))
    assert line == "nfe=9 is too small: even at tol=1 a sample costs 10.2; use nfe >= 11"
    line = one_line(SampleError, tolerance_for, 9, torch.float32, Cost(1e6, 10))
    assert line == "nfe=9 is too small: even at tol=1 a sample costs 127.0, and more; give tol instead"
