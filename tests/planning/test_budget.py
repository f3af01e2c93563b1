"""What a run costs and what it refuses: both are settled before the network is evaluated."""

import math
import re

import pytest
import torch

from ddim_ode import paths
from ddim_ode.grids import GridError, make_grid
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import GuidanceError, Guided
from ddim_ode.planning.inputs import SampleError
from ddim_ode.sampling import sample
from ddim_ode.solvers import MethodError
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Counting, Recording
from tests.helpers.tables import PATHS

VP = PATHS["linear"]
MIXTURE = labelled()
MODEL = MIXTURE.denoiser(VP)
BUDGETS = range(1, 26)


def counted() -> tuple[Counting, Denoiser]:
    counting = Counting(MODEL.net)
    return counting, Denoiser(counting, VP, "noise", MIXTURE.shape, MIXTURE.num_classes)


# --- cost


@pytest.mark.parametrize("final", ["denoise", "sigma_min"])
@pytest.mark.parametrize("grid", [None, "leading", "trailing", "quadratic", "log_snr"])
@pytest.mark.parametrize("nfe", BUDGETS)
def test_the_budget_is_spent_to_the_last_evaluation(nfe, grid, final):
    counting, model = counted()
    sol = sample(model, nfe=nfe, grid=grid, final=final, seeds=range(3))
    assert sol.nfe.tolist() == [nfe] * 3
    assert counting.rows == 3 * nfe
    assert sol.nfe.dtype == torch.int64
    assert sol.steps.tolist() == [len(sol.sigmas) - 1] * 3 == [nfe] * 3
    assert sol.rejected.tolist() == [0] * 3
    assert float(sol.sigmas[-1]) == (0 if final == "denoise" else pytest.approx(VP.sigma_min, rel=1e-12))


@pytest.mark.parametrize("final", ["denoise", "sigma_min"])
@pytest.mark.parametrize("nfe", range(2, 26))
def test_guidance_costs_two_evaluations_a_prediction(nfe, final):
    counting, model = counted()
    sol = sample(model, nfe=nfe, final=final, seeds=range(3), labels=[0, 1, 2], guidance=2.0)
    assert sol.nfe.tolist() == [nfe - nfe % 2] * 3
    assert counting.rows == int(sol.nfe.sum())
    assert sol.steps.tolist() == [nfe // 2] * 3


RANGES = [(0.0, 1.0), (0.1, 5.0), (1.0, math.inf), (3.0, 4.0), (1e-9, 2e-9)]


@pytest.mark.parametrize("sigma_range", RANGES)
@pytest.mark.parametrize("final", ["denoise", "sigma_min"])
@pytest.mark.parametrize("grid", ["uniform", "leading", "quadratic", "angle"])
def test_guidance_in_a_part_of_the_range_spends_the_most_it_can(grid, final, sigma_range):
    low, high = sigma_range
    costs = {}
    for intervals in range(1, 26):
        passes = make_grid(grid, VP, intervals, final)[:-1].tolist()
        costs[intervals] = sum(2 if low <= sigma <= high else 1 for sigma in passes)
    for nfe in BUDGETS:
        counting, model = counted()
        guided = Guided(model, 2.0, sigma_range=sigma_range)
        affordable = [cost for cost in costs.values() if cost <= nfe]
        if not affordable:
            least = min(costs.values())
            with pytest.raises(SampleError, match=f"nfe={nfe} is too small.*use nfe >= {least}"):
                sample(guided, nfe=nfe, grid=grid, final=final, labels=1)
            continue
        sol = sample(guided, nfe=nfe, grid=grid, final=final, seeds=range(2), labels=1)
        assert sol.nfe.tolist() == [max(affordable)] * 2, f"nfe={nfe}"
        assert counting.rows == int(sol.nfe.sum())


def test_too_small_a_budget_names_the_smallest_that_works():
    with pytest.raises(SampleError, match="nfe=1 is too small: one step costs 2 evaluations; use nfe >= 2"):
        sample(MODEL, nfe=1, labels=0, guidance=3.0)
    assert sample(MODEL, nfe=2, labels=0, guidance=3.0).nfe.tolist() == [2]


@pytest.mark.parametrize(
    ("grid", "final", "spent"),
    [("leading", "denoise", 1000), ("leading", "sigma_min", 999), ("trailing", "sigma_min", 666)],
)
def test_a_budget_larger_than_the_schedule_is_not_spent(grid, final, spent):
    assert sample(MODEL, nfe=1500, grid=grid, final=final).nfe.tolist() == [spent]
    with pytest.raises(GridError, match=r"1001|strictly decreasing"):
        make_grid(grid, MODEL.path, spent + 1, final)


@pytest.mark.parametrize(
    ("grid", "final", "nfe", "spent"),
    [
        ("leading", "denoise", 1500, 1500),
        ("trailing", "denoise", 2000, 2000),
        ("leading", "sigma_min", 1000, 1000),
        ("trailing", "sigma_min", 1000, 1000),
        ("quadratic", "sigma_min", 1000, 1000),
    ],
)
def test_a_guided_budget_is_for_passes_and_not_for_timesteps(grid, final, nfe, spent):
    sol = sample(MODEL, nfe=nfe, grid=grid, final=final, labels=1, guidance=2.0)
    assert sol.nfe.tolist() == [spent]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize(
    ("grid", "cost"), [([5.0, 0.0], 1), ([5.0, 0.5], 1), ([100.0, 5.0, 1.0, 0.0], 3), ([100.0, 5.0, 1.0, 0.02], 3)]
)
def test_an_explicit_grid_costs_one_evaluation_an_interval(grid, cost, guidance):
    passes = cost * (1 if guidance == 1 else 2)
    for nfe in (None, passes):
        counting, model = counted()
        sol = sample(model, grid=grid, nfe=nfe, seeds=range(2), labels=1, guidance=guidance)
        assert sol.nfe.tolist() == [passes] * 2
        assert counting.rows == 2 * passes
        assert sol.sigmas.tolist() == grid
    for nfe in (passes - 1, passes + 1):
        line = f"nfe={nfe} contradicts an explicit grid that costs {passes}; leave nfe"
        with pytest.raises(SampleError, match=line if nfe else "nfe=0 must be a whole number >= 1"):
            sample(MODEL, grid=grid, nfe=nfe, labels=1, guidance=guidance)


@pytest.mark.parametrize(("batch_size", "batches"), [(1, 5), (2, 3), (5, 1), (128, 1), (None, 1)])
def test_each_sample_is_charged_once_whatever_the_batches(batch_size, batches):
    sizes = []

    def net(x, t, labels):
        sizes.append(len(x))
        return torch.zeros_like(x)

    sol = sample(Denoiser(net, VP, "noise", (2,), 3), nfe=4, seeds=range(5), batch_size=batch_size)
    assert sol.nfe.tolist() == [4] * 5
    assert len(sizes) == 4 * batches
    assert sum(sizes) == 20


# --- what it refuses

PLAIN = Denoiser(Recording(), VP, "noise", (2, 3))

REFUSED = {
    "method": (MODEL, {"method": "dimm"}, MethodError, "unknown method 'dimm'; did you mean 'ddim'? choose one of "),
    "final": (MODEL, {"final": "zero"}, SampleError, "final='zero' is unknown; choose 'denoise' or 'sigma_min'"),
    "grid": (MODEL, {"grid": "karas"}, GridError, "unknown grid 'karas'; did you mean 'karras'?"),
    "grid up": (MODEL, {"grid": [1.0, 2.0]}, GridError, "decreasing"),
    "grid high": (
        MODEL,
        {"grid": [1e4, 1.0]},
        GridError,
        "the grid starts at sigma=10000; the model was trained up to",
    ),
    "nfe 0": (MODEL, {"nfe": 0}, SampleError, "nfe=0 must be a whole number >= 1"),
    "nfe negative": (MODEL, {"nfe": -5}, SampleError, "nfe=-5 must be a whole number >= 1"),
    "nfe fraction": (MODEL, {"nfe": 2.5}, SampleError, "nfe=2.5 must be a whole number >= 1"),
    "nfe bool": (MODEL, {"nfe": True}, SampleError, "nfe=True must be a whole number >= 1"),
    "nfe nan": (MODEL, {"nfe": math.nan}, SampleError, "nfe=nan must be a whole number >= 1"),
    "nfe inf": (MODEL, {"nfe": math.inf}, SampleError, "nfe=inf must be a whole number >= 1"),
    "nfe word": (MODEL, {"nfe": "ten"}, SampleError, "must be a whole number >= 1"),
    "batch_size": (MODEL, {"batch_size": 0}, SampleError, "batch_size=0 must be a whole number >= 1"),
    "batch_size fraction": (MODEL, {"batch_size": 1.5}, SampleError, "batch_size=1.5 must be a whole number >= 1"),
    "dtype half": (MODEL, {"dtype": torch.float16}, SampleError, "use torch.float32 or torch.float64"),
    "dtype int": (MODEL, {"dtype": torch.int64}, SampleError, "dtype=torch.int64 is no dtype for a state"),
    "no seeds": (MODEL, {"seeds": []}, SampleError, "seeds is empty; give at least one"),
    "seed negative": (MODEL, {"seeds": [1, -1]}, SampleError, "seed -1 is not a whole number in 0..2^32-1"),
    "seed large": (MODEL, {"seeds": [2**32]}, SampleError, f"seed {2**32} is not a whole number in 0..2^32-1"),
    "seed fraction": (MODEL, {"seeds": [0.5]}, SampleError, "seed 0.5 is not a whole number"),
    "seed bool": (MODEL, {"seeds": [True]}, SampleError, "seed True is not a whole number"),
    "seed nan": (MODEL, {"seeds": [math.nan]}, SampleError, "seed nan is not a whole number"),
    "seed word": (MODEL, {"seeds": ["a"]}, SampleError, "seed 'a' is not a whole number"),
    "seeds int": (MODEL, {"seeds": 3}, SampleError, "seeds"),
    "two starts": (
        MODEL,
        {"seeds": [0], "noise": torch.zeros(1, 2, 3)},
        SampleError,
        "seeds and noise exclude each other; give one",
    ),
    "three starts": (
        MODEL,
        {"seeds": [0], "noise": torch.zeros(1, 2, 3), "start": torch.zeros(1, 2, 3)},
        SampleError,
        "seeds and noise and start exclude each other",
    ),
    "noise shape": (
        MODEL,
        {"noise": torch.zeros(1, 3, 2)},
        SampleError,
        "noise has shape (1, 3, 2); this model needs a tensor (B, 2, 3)",
    ),
    "noise without batch": (MODEL, {"noise": torch.zeros(2, 3)}, SampleError, "noise has shape (2, 3)"),
    "noise scalar": (MODEL, {"noise": torch.tensor(1.0)}, SampleError, "noise has shape ()"),
    "noise empty": (MODEL, {"noise": torch.zeros(0, 2, 3)}, SampleError, "noise has shape (0, 2, 3)"),
    "start shape": (MODEL, {"start": torch.zeros(1, 3, 2)}, SampleError, "start has shape (1, 3, 2)"),
    "noise nan": (MODEL, {"noise": torch.full((1, 2, 3), math.nan)}, SampleError, "noise[0] holds NaN or infinity"),
    "start inf": (MODEL, {"start": torch.full((1, 2, 3), math.inf)}, SampleError, "start[0] holds NaN or infinity"),
    "label large": (MODEL, {"labels": 3}, SampleError, "label 3 does not exist; this model has labels 0..2"),
    "label negative": (MODEL, {"labels": [-1]}, SampleError, "label -1 does not exist"),
    "label float": (
        MODEL,
        {"labels": 1.0},
        SampleError,
        "labels are torch.float32; they must be whole numbers in 0..2",
    ),
    "label bool": (MODEL, {"labels": True}, SampleError, "labels are torch.bool; they must be whole numbers"),
    "labels count": (
        MODEL,
        {"labels": [0, 1, 2], "seeds": range(2)},
        SampleError,
        "labels have shape (3,); give one label, or one a sample (2)",
    ),
    "labels none": (PLAIN, {"labels": 0}, SampleError, "this model has no classes; leave labels out"),
    "guidance none": (PLAIN, {"guidance": 2.0}, GuidanceError, "guidance=2 needs a class-conditional model"),
    "guidance nan": (
        MODEL,
        {"guidance": math.nan, "labels": 0},
        GuidanceError,
        "guidance=nan must be a finite number, such as 2.0",
    ),
    "no range": (
        MIXTURE.denoiser(paths.noise),
        {},
        GridError,
        "needs a finite range of sigma, and this model's is [0, inf]; give its path sigma_min and sigma_max",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_cannot_be_are_refused(case):
    model, arguments, error, message = REFUSED[case]
    with pytest.raises(error, match=re.escape(message)):
        sample(model, **arguments)


def test_every_refusal_is_a_value_error():
    assert all(issubclass(error, ValueError) for _, _, error, _ in REFUSED.values())


def test_an_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match="num_steps"):
        sample(MODEL, num_steps=10)
