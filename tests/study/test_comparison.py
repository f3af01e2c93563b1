"""A study: its errors are true, it can be cut short anywhere, and it tells what it could not do."""

import dataclasses
import json
import math
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import ddim_ode
from ddim_ode.grids import make_grid
from ddim_ode.models.guidance import GuidanceError
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.profile import profile_of
from ddim_ode.solvers import MethodError
from ddim_ode.study.cells import StudyError
from ddim_ode.study.comparison import Study, compare
from ddim_ode.study.reference import solve_reference
from tests.helpers.assertions import one_line
from tests.helpers.small_study import MIXTURE, MODEL, SMALL, timeless
from tests.helpers.tensors import rms

OWN = ddim_ode.METHODS["ddim"].grid


@pytest.fixture(scope="module")
def study() -> Study:
    return compare(MODEL, **SMALL)


def flow_by_scipy(noise: Tensor, sigmas: tuple[float, float]) -> Tensor:
    """The probability flow in the angle, (cos u, sin u), and the denoised image at its end."""
    begin, end = (math.atan(sigma) for sigma in sigmas)

    def slope(u: float, y: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(y).reshape(noise.shape)
        data, eps = MIXTURE.denoise(state / math.cos(u), math.tan(u))
        return (math.cos(u) * eps - math.sin(u) * data).flatten().numpy()

    start = (math.cos(begin) * math.sqrt(1 + sigmas[0] ** 2) * noise.double()).flatten().numpy()
    found = solve_ivp(slope, (begin, end), start, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    return MIXTURE.denoise(torch.from_numpy(found).reshape(noise.shape) / math.cos(end), sigmas[1])[0]


def test_errors_are_those_of_an_independent_script():
    """DDIM's Eq. 12 by hand against scipy's solution of the flow, without our solvers."""
    seeds, nfe = [3, 1, 4], 7
    found = compare(MODEL, ["ddim"], [nfe], seeds, labels=None, dtype=torch.float64, reference_tol=1e-10)
    noise = seeded_noise(seeds, MODEL.shape).double()
    sigmas = make_grid(ddim_ode.METHODS["ddim"].grid, MODEL.path, nfe, "denoise").tolist()
    x = noise * math.sqrt(1 + sigmas[0] ** 2)
    for sigma, then in pairwise(sigmas):
        data, eps = MIXTURE.denoise(x, sigma)
        x = data + then * eps
    errors = rms(x - flow_by_scipy(noise, (MODEL.sigma_max, MODEL.sigma_min)))
    row = found.rows[0]
    assert row.error.median == pytest.approx(float(np.median(errors)), abs=1e-9)
    assert row.error.rms == pytest.approx(float(errors.square().mean().sqrt()), abs=1e-9)
    assert row.error.share == float((errors > 0.1).double().mean())
    assert dataclasses.asdict(row.measured_nfe) == {"min": 7, "median": 7.0, "max": 7, "mean": 7.0}
    assert found.results["reference"]["agreed"]


def test_the_reference_tells_its_own_error(study):
    """The change from the resolution before bounds the distance to scipy's solution."""
    found = solve_reference(MODEL, SolveOptions(), SMALL["seeds"], None, 1e-3)
    exact = flow_by_scipy(seeded_noise(SMALL["seeds"], MODEL.shape), (MODEL.sigma_max, MODEL.sigma_min))
    errors = rms(found.x - exact)
    assert errors.median() <= found.median
    assert errors.square().mean().sqrt() <= found.rms
    assert found.agreed
    told = study.results["reference"]
    assert told["error"]["median"] <= told["wanted"] == 1e-3


def test_the_reference_is_solved_without_the_budget_the_grid_and_the_noise_of_other_methods():
    plain = solve_reference(MODEL, SolveOptions(), (0, 1), None, 0.01)
    noisy = SolveOptions(method="ddim", nfe=7, grid="karras", eta=1.0, eta_range=(0.1, 10.0))
    assert torch.equal(solve_reference(MODEL, noisy, (0, 1), None, 0.01).x, plain.x)


def test_the_same_study_twice_is_the_same_to_the_last_bit(study):
    assert timeless(compare(MODEL, **SMALL)) == timeless(study)


def test_another_batch_size_changes_rounding_only(study):
    other = compare(MODEL, **SMALL, batch_size=2)
    for row, own in zip(other.rows, study.rows, strict=True):
        assert (row.status, row.measured_nfe) == (own.status, own.measured_nfe)
        if own.error:
            assert row.error.median == pytest.approx(own.error.median, abs=1e-5)


def test_what_is_in_a_row(study):
    rows = {row.key: row for row in study.rows}
    exact = rows[f"exact_heun|{ddim_ode.METHODS['exact_heun'].grid}|nfe=9"]
    assert exact.kind == "invertible"
    assert dataclasses.asdict(exact.reconstruction) == {"rms": 0.0, "bit_exact": 1.0, "nfe_up": 9.0, "nfe_down": 9.0}
    assert rows["adaptive|-|nfe=9"].found_tol > 0
    own = ddim_ode.sample(MODEL, "adaptive", 9, SMALL["seeds"], labels=SMALL["labels"])
    assert rows["adaptive|-|nfe=9"].found_tol == own.tol
    assert rows["adaptive|-|nfe=9"].measured_nfe.mean <= 9
    for row in study.rows:
        e = row.error
        assert e.median_low <= e.median <= e.median_high
        assert e.rms_low <= e.rms <= e.rms_high
        assert row.timing.images_per_second > 0
        assert 0 < row.ssim <= 1
    assert study.pictures.keys() == {*rows, "reference"}
    assert study.pictures["reference"].shape == (6, 1, 12, 12)
    winner = study.row(study.best[1]["key"])
    assert winner.error.median == min(row.error.median for row in study.rows if row.measured_nfe.mean <= 9)


def test_noise_has_no_trajectory_to_compare_and_keeps_its_distribution():
    real = MIXTURE.sample(50, seed=1).clamp(-1, 1)
    found = compare(MODEL, ["ddim", "dpmpp_2m"], [5], range(12), etas=[0, 1], real=real)
    plain, noisy, _, refused = found.rows
    assert plain.error
    assert noisy.kind == "stochastic"
    assert (noisy.error, noisy.psnr, noisy.resolved) == (None, None, None)
    assert noisy.distribution.sliced_wasserstein > 0
    assert noisy.consistency > plain.consistency
    assert refused.status == "skipped"
    assert refused.reason.startswith("this method cannot have noise with eta=1.0 between its steps")


@dataclasses.dataclass(frozen=True)
class Broken:
    to_zero = False

    def init(self, ode, sigmas, y):
        return None

    def step(self, ode, u0, u1, y, state):
        if float(u0) < 0.5:
            raise RuntimeError("the network\nhas had enough")
        return y, state


def test_a_cell_that_fails_is_a_row_and_the_study_goes_on():
    broken = dataclasses.replace(ddim_ode.METHODS["ddim"], solver=Broken())
    found = compare(MODEL, {"broken": broken, "own": ddim_ode.adams(2), "ddim": "ddim"}, [5], range(2))
    assert [row.status for row in found.rows] == ["failed", "done", "done"]
    assert found.rows[0].reason == "RuntimeError: the network has had enough"
    small = compare(MODEL, ["rk4", "ddim"], [2], range(2))
    assert [row.status for row in small.rows] == ["done", "done"]
    adaptive = compare(MODEL, ["dopri5"], [2], range(2)).rows[0]
    assert adaptive.status == "skipped"
    assert adaptive.reason.startswith("nfe=2 is too small")


def test_what_a_callback_raises_ends_the_study(tmp_path):
    def stop(now):
        if now.what == f"ddim|{OWN}|nfe=3":
            raise OSError("the disk of my log is full")

    with pytest.raises(OSError, match="the disk of my log is full"):
        compare(MODEL, ["ddim"], [3], range(2), callback=stop)


def test_one_seed_has_an_error_and_no_consistency():
    row = compare(MODEL, ["ddim"], [2], [0]).rows[0]
    assert (row.status, row.consistency) == ("done", None)
    assert row.error.median == row.error.median_low == row.error.rms_high


def test_numbers_of_any_kind_and_given_twice():
    etas = [np.float32(0.5), 0.5, 0, 0.0]
    found = compare(MODEL, ["ddim"], np.array([3, 3]), np.arange(2), etas=etas)
    assert [row.key for row in found.rows] == [f"ddim|{OWN}|nfe=3|eta=0.5", f"ddim|{OWN}|nfe=3|eta=0.0"]
    assert json.loads(json.dumps(found.results))["best"] == found.best
    assert len(found.best) == 1


def test_labels_are_taken_in_turn_unless_told_otherwise():
    def found(model=MODEL, **given):
        return compare(model, ["ddim"], [2], range(5), reference_tol=0.1, **given)

    each, none = found(), found(labels=None)
    assert each.settings.labels == [0, 1, 2, 0, 1]
    assert timeless(each) == timeless(found(labels=[0, 1, 2, 0, 1])) == timeless(found(labels="each"))
    assert none.settings.labels is None
    assert none.rows[0].error != each.rows[0].error
    assert found(dataclasses.replace(MODEL, num_classes=0)).settings.labels is None
    assert compare(MODEL, ["ddim"], [4], range(2), guidance=2.0, reference_tol=0.1).settings.labels == [0, 1]


def test_what_a_grid_costs_that_is_made_for_the_model(tmp_path):
    """Of a study whose own grids are measured, what is left for the network is the profile, the trials and samples."""
    few = {"methods": ["ddim", "adams2"], "nfe": [6], "seeds": range(4), "reference_tol": 0.01, "out": tmp_path}
    own = compare(MODEL, **few)
    both = compare(MODEL, **few, grids=["own", "auto"])
    made = [row.grid_cost for row in both.rows if row.grid == "auto"]
    assert len({cost.profile for cost in made}) == 1
    assert both.timing.evaluations == made[0].profile + sum(cost.trials for cost in made) + 2 * 4 * 6
    assert made[0].profile == profile_of(MODEL, True).evaluations
    assert [row for row in both.rows if row.grid != "auto"] == list(own.rows)
    assert {row.grid_cost for row in own.rows} == {None}
    assert both.settings.own_grids == {"ddim": OWN, "adams2": ddim_ode.METHODS["adams2"].grid}
    again = compare(MODEL, **few, grids=["own", "auto"])
    assert again.rows == both.rows  # with what their grids have cost
    refused = compare(MODEL, ["exact_heun"], [6], range(4), grids=["auto"], reference_tol=0.01)
    assert refused.rows[0].status == "skipped"
    assert refused.timing.evaluations == own.timing.evaluations - 2 * 4 * 6  # the reference's, and no profile


def test_a_data_frame_needs_pandas(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert one_line(StudyError, study.to_pandas) == "to_pandas needs pandas; pip install pandas"


BAD = [
    (StudyError, {"reference_tol": math.nan}, "reference_tol=nan must be a number between 0 and 1"),
    (GuidanceError, {"guidance": math.inf}, "guidance=inf must be a finite number"),
    (StudyError, {"etas": ["much"]}, "eta='much' must be a number >= 0, or 'ddpm_large'"),
    (StudyError, {"methods": []}, "methods is empty; give at least one"),
    (StudyError, {"methods": "ddim"}, "methods='ddim' is a string; give a list"),
    (StudyError, {"methods": ["ddim", "ddim"]}, "methods name ddim twice"),
    (MethodError, {"methods": ["dpmp_2m"]}, "did you mean 'dpmpp_2m'?"),
    (StudyError, {"nfe": [0]}, "nfe=0 must be a whole number >= 1"),
    (StudyError, {"nfe": []}, "there is nothing to run"),
    (StudyError, {"tols": [-1]}, "tol=-1 must be a finite number > 0"),
    (StudyError, {"grids": ["karas"]}, "did you mean 'karras'?"),
    (StudyError, {"grids": []}, "grids is empty"),
    (ddim_ode.DDIMError, {"features": "inceptoin"}, "did you mean 'inception'?"),
    (ddim_ode.DDIMError, {"labels": [9]}, "label 9 does not exist"),
    (StudyError, {"labels": "eech"}, "labels='eech' is unknown; give 'each' for all classes in turn, numbers, or None"),
    (StudyError, {"methods": [ddim_ode.adams(3)]}, "a Method without a name; give a mapping, as in {'mine': adams(3)}"),
    (MethodError, {"methods": {"a": 3}}, "method is the int 3; give a name in METHODS, or a Method"),
    *((StudyError, {"nfe": value}, "is not a list; write [") for value in ("5", 5, {5}, {5: 5})),
    (StudyError, {"nfe": torch.ones(1).expand(2**40)}, "has more than"),
    (ddim_ode.DDIMError, {"features": torch.ones(2, 1, 4, 4)}, "features"),
    *((ddim_ode.DDIMError, {"real": value}, "; give a tensor") for value in ([1], "x")),
    *((ddim_ode.DDIMError, {name: 3}, f"{name} is the int 3") for name in ("out", "callback", "command", "model")),
    (ddim_ode.DDIMError, {"features": 3}, "features=3 is neither a name nor callable"),
    (StudyError, {"reference_tol": "x"}, "reference_tol='x' must be a number between 0 and 1"),
]


@pytest.mark.parametrize(("error", "choices", "line"), BAD)
def test_a_study_that_cannot_be_is_one_line(error, choices, line):
    given = {"model": MODEL, "methods": ["ddim"], "nfe": [2], "seeds": [0], **choices}
    assert line in one_line(error, compare, **given)
