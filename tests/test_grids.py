"""Every grid against the formula of its paper, in plain Python."""

import math

import numpy as np
import pytest
import torch

from ddim_ode import paths
from ddim_ode.errors import unknown
from ddim_ode.grids import GRIDS, GridError, check_grid, make_grid
from tests.helpers.tables import linear_table

VP = paths.DiscreteVP.linear()
COSINE = paths.DiscreteVP.cosine()
EDM = paths.Noise(0.002, 80.0)
COUNTS = [1, 2, 3, 7, 10, 50, 300, 999, 1000]

LOG_SIGMA = [0.5 * math.log((1 - abar) / abar) for abar in linear_table()]


def at(t: float) -> float:
    """sigma at a timestep of DDPM's schedule, log sigma linear between two of them."""
    below = min(int(t), 998)
    return math.exp((1 - (t - below)) * LOG_SIGMA[below] + (t - below) * LOG_SIGMA[below + 1])


LOW, HIGH = at(0), at(999)


def between(first: float, last: float, n: int) -> list[float]:
    """n numbers, evenly spaced; the first, if there is only one."""
    return [first + (last - first) * i / max(n - 1, 1) for i in range(n)]


def share_of(sigma: float) -> float:
    """A logistic distribution of log sigma about 0.7 whose width is 2 above and 1.5 below, and its density unbroken."""
    z = math.log(sigma / 0.7)
    below = 1 / (1 + math.exp(-z / 1.5)) * 2 * 1.5 / 3.5
    return below if z < 0 else 1.5 / 3.5 + (2 / (1 + math.exp(-z / 2)) - 1) * 2 / 3.5


def quantile(share: float) -> float:
    """Where that is, by bisection."""
    low, high = math.log(LOW) - 1, math.log(HIGH) + 1
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if share_of(math.exp(middle)) > share else (middle, high)
    return math.exp(low)


#: the n sigmas of a grid on DDPM's schedule
FORMULAS = {
    "uniform": lambda n: [at(t) for t in between(999, 0, n)],
    "leading": lambda n: [at(i * (1000 // n)) for i in range(n - 1, -1, -1)],
    "trailing": lambda n: [at(round(k * 1000 / n) - 1) for k in range(n, 0, -1)],
    "quadratic": lambda n: [at(r**2) for r in between(math.sqrt(800), 0, n)],
    "karras": lambda n: [r**7 for r in between(HIGH ** (1 / 7), LOW ** (1 / 7), n)],
    "log_snr": lambda n: [math.exp(r) for r in between(math.log(HIGH), math.log(LOW), n)],
    "angle": lambda n: [math.tan(r) for r in between(math.atan(HIGH), math.atan(LOW), n)],
    "trailing_angle": lambda n: [
        math.tan(r**1.2) for r in between(math.atan(HIGH) ** (1 / 1.2), math.atan(LOW) ** (1 / 1.2), n + 1)[:-1]
    ],
    "near_image": lambda n: [
        u**5 / (1 - u**5) for u in between((HIGH / (1 + HIGH)) ** (1 / 5), (LOW / (1 + LOW)) ** (1 / 5), n)
    ],
    "logistic": lambda n: [
        quantile(share)
        for share in [share_of(HIGH) + (share_of(LOW) - share_of(HIGH)) * i / max(n - 0.6, 1) for i in range(n)]
    ],
}


def test_every_grid_has_a_formula_here():
    assert set(FORMULAS) == set(GRIDS)


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("name", FORMULAS)
def test_named_grid_is_its_formula_then_zero(name, n):
    sigmas = make_grid(name, VP, n, "denoise").tolist()
    assert len(sigmas) == n + 1
    assert sigmas[-1] == 0
    assert sigmas[:-1] == pytest.approx(FORMULAS[name](n), rel=1e-10)


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize(
    "name", [name for name in FORMULAS if name not in ("leading", "trailing", "trailing_angle", "logistic")]
)
def test_named_grid_is_its_formula_down_to_sigma_min(name, n):
    sigmas = make_grid(name, VP, n, "sigma_min").tolist()
    assert sigmas == pytest.approx(FORMULAS[name](n + 1), rel=1e-10)
    assert sigmas[-1] == pytest.approx(LOW, rel=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 50, 300, 500, 999])
def test_leading_to_sigma_min_is_the_offset_of_one_then_zero(n):
    # steps_offset=1 and set_alpha_to_one=False, as Stable Diffusion has them
    timesteps = [i * (1000 // n) + 1 for i in range(n - 1, -1, -1)]
    assert make_grid("leading", VP, n, "sigma_min").tolist() == pytest.approx(
        [at(t) for t in [*timesteps, 0]], rel=1e-10
    )


@pytest.mark.parametrize("count", [np.int64(5), torch.tensor(5), np.array(5)])
@pytest.mark.parametrize("name", GRIDS)
def test_a_count_may_be_of_any_library(name, count):
    path = paths.DiscreteVP.linear()
    assert torch.equal(GRIDS[name](path, count), GRIDS[name](path, 5))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 50, 300, 500])
@pytest.mark.parametrize("name", ["trailing", "trailing_angle"])
def test_trailing_to_sigma_min_ends_there(name, n):
    assert make_grid(name, VP, n, "sigma_min").tolist() == pytest.approx([*FORMULAS[name](n), LOW], rel=1e-10)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_trailing_on_a_continuous_path_is_even_in_its_time(n):
    times = EDM.u(make_grid("trailing", EDM, n, "sigma_min"))
    assert times.tolist() == pytest.approx(between(EDM.sigma_max, EDM.sigma_min, n + 1), rel=1e-10)


PLACES = {
    "linear": VP,
    "cosine": COSINE,
    "edm": EDM,
    "angle": paths.Angle(0.01, 50.0),
    "flow": paths.Flow(0.002, 300.0),
}

#: rules for timesteps, of which none is left for the end
FULL = {("leading", 1000), ("trailing", 999), ("trailing", 1000)}


@pytest.mark.parametrize(
    ("name", "place", "n", "final"),
    [
        (name, place, n, final)
        for name in FORMULAS
        for place in PLACES
        for n in COUNTS
        for final in ("denoise", "sigma_min")
        if PLACES[place].num_timesteps or name not in ("leading", "quadratic")
        if final == "denoise" or (name, n) not in FULL
    ],
)
def test_a_grid_has_n_intervals_and_decreases(name, place, n, final):
    path = PLACES[place]
    sigmas = make_grid(name, path, n, final)
    assert sigmas.shape == (n + 1,)
    assert sigmas.dtype == torch.float64
    assert (sigmas[1:] < sigmas[:-1]).all()
    assert sigmas[0] <= path.sigma_max * (1 + 1e-12)
    last = float(sigmas[-1])
    assert last == 0 if final == "denoise" else last == pytest.approx(path.sigma_min, rel=1e-12)
    if name not in ("leading", "quadratic"):
        assert float(sigmas[0]) == pytest.approx(path.sigma_max, rel=1e-12)


@pytest.mark.parametrize(("n", "first"), [(300, 897), (334, 666), (7, 852), (999, 998), (600, 599)])
def test_leading_takes_as_many_steps_as_asked(n, first):
    # range(0, 1000, 1000 // 300) of the DDIM code has 334 elements
    sigmas = make_grid("leading", VP, n, "denoise")
    assert len(sigmas) == n + 1
    assert float(sigmas[0]) == pytest.approx(at(first), rel=1e-10)


def zero_terminal_snr() -> list[float]:
    """DDPM's table rescaled so that the last timestep is pure noise (Lin et al. 2023, Algorithm 1)."""
    roots = [math.sqrt(abar) for abar in linear_table()]
    return [((root - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2 for root in roots]


@pytest.mark.parametrize("name", FORMULAS)
def test_zero_terminal_snr_starts_at_the_largest_finite_sigma(name):
    table = zero_terminal_snr()
    assert table[-1] == 0
    path = paths.DiscreteVP(table)
    largest = math.sqrt(1 / table[-2] - 1)
    for final in ("denoise", "sigma_min"):
        sigmas = make_grid(name, path, 10, final)
        assert len(sigmas) == 11
        if name in ("leading", "quadratic"):
            assert float(sigmas[0]) < largest
        else:
            assert float(sigmas[0]) == pytest.approx(largest, rel=1e-10)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_grid_fits_a_short_schedule(name):
    path = paths.DiscreteVP([0.99, 0.9, 0.7, 0.4, 0.1, 0.01])
    sigmas = make_grid(name, path, 3, "denoise").tolist()
    timesteps = {"uniform": [5, 2.5, 0], "leading": [4, 2, 0], "trailing": [5, 3, 1], "quadratic": [4.8, 1.2, 0]}
    if name in timesteps:
        expected = path.sigma(torch.tensor(timesteps[name], dtype=torch.float64)).tolist()
        assert sigmas[:-1] == pytest.approx(expected, rel=1e-10)
    else:
        first, last = sigmas[0], sigmas[3 if name == "trailing_angle" else 2]
        assert first == pytest.approx(path.sigma_max, rel=1e-12)
        if name == "logistic":  # which leaves some way below its last node
            assert path.sigma_min < last < sigmas[1]
        else:
            assert last == pytest.approx(0 if name == "trailing_angle" else path.sigma_min, rel=1e-12)


@pytest.mark.parametrize("name", ["uniform", "karras", "log_snr", "angle", "trailing_angle", "near_image", "logistic"])
def test_a_grid_without_rounding_may_be_finer_than_the_schedule(name):
    assert len(make_grid(name, VP, 1500, "sigma_min")) == 1501


@pytest.mark.parametrize("name", ["leading", "trailing"])
def test_a_rule_for_timesteps_cannot_place_more_than_there_are(name):
    with pytest.raises(GridError, match=f"grid='{name}' cannot place 1001 steps on 1000 timesteps; use"):
        make_grid(name, VP, 1001, "denoise")


@pytest.mark.parametrize(("name", "n"), [("leading", 1000), ("trailing", 1000), ("trailing", 999)])
def test_no_timestep_is_left_for_the_end(name, n):
    with pytest.raises(GridError, match=f"{name}|fewer"):
        make_grid(name, VP, n, "sigma_min")


@pytest.mark.parametrize("name", ["leading", "quadratic"])
@pytest.mark.parametrize("path", [EDM, paths.flow, paths.angle])
def test_a_continuous_path_has_no_timesteps(name, path):
    with pytest.raises(GridError, match=f"grid='{name}' needs a schedule of discrete timesteps; use 'uniform'"):
        make_grid(name, path, 10, "denoise")


@pytest.mark.parametrize(
    "name", ["uniform", "trailing", "karras", "log_snr", "angle", "trailing_angle", "near_image", "logistic"]
)
@pytest.mark.parametrize("path", [paths.noise, paths.Noise(0.0, 80.0), paths.Noise(0.002, math.inf)])
def test_a_path_without_a_range_has_no_named_grid(name, path):
    with pytest.raises(GridError, match=rf"grid='{name}' needs a finite range.*\[.*\]; give its path sigma_min"):
        make_grid(name, path, 10, "denoise")


@pytest.mark.parametrize(
    ("name", "closest"), [("karas", "karras"), ("unifrom", "uniform"), ("logsnr", "log_snr"), ("Trailing", "trailing")]
)
def test_an_unknown_grid_suggests_the_closest(name, closest):
    with pytest.raises(GridError, match=f"unknown grid '{name}'; did you mean '{closest}'\\? choose one of uniform, "):
        make_grid(name, VP, 10, "denoise")


def test_a_name_like_no_other_lists_them_all():
    message = unknown("grid", "xyz", GRIDS)
    known = "uniform, leading, trailing, quadratic, karras, log_snr, angle, trailing_angle, near_image, logistic"
    assert message == f"unknown grid 'xyz'; choose one of {known}"


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, lambda s: torch.tensor(s, dtype=torch.float64).numpy()])
@pytest.mark.parametrize("sigmas", [[80.0, 1.0, 0.0], [5.0, 0.001], [2.0, 1.5, 1.0, 0.5]])
def test_an_explicit_grid_is_kept(sigmas, kind):
    # below sigma_min only the time label is clamped, so a grid may go there
    got = check_grid(kind(sigmas), EDM)
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx(sigmas, rel=1e-7)


def test_an_explicit_grid_is_exact_in_double():
    sigmas = [1 / 3, 1 / 7, 0.1]
    assert check_grid(sigmas, EDM).tolist() == sigmas


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([1.0, 2.0, 0.0], "decreas"),
        ([2.0, 1.0, 1.0, 0.0], "decreas"),
        ([2.0, 1.0, -0.5], "-0.5|>= 0"),
        ([math.inf, 1.0], "finite"),
        ([2.0, math.nan, 1.0], "finite"),
        ([1.0], r"shape \(1,\) is not a sequence of at least 2"),
        ([], r"shape \(0,\) is not a sequence of at least 2"),
        (3.0, r"shape \(\) is not a sequence"),
        ([[2.0, 1.0], [1.0, 0.0]], r"shape \(2, 2\) is not a sequence"),
        ([81.0, 1.0], "starts at sigma=81; the model was trained up to 80"),
        (["a", "b"], "is not a sequence of sigmas"),
        ([None, 1.0], "is not a sequence of sigmas"),
    ],
)
def test_a_bad_explicit_grid_is_refused(sigmas, message):
    with pytest.raises(GridError, match=message):
        check_grid(sigmas, EDM)


@pytest.mark.parametrize(
    ("sigmas", "value"),
    [([7.5, 3.25, 3.25, 0.5], "3.25"), ([7.5, 3.25, 4.75, 0.5], "4.75"), ([7.5, 3.25, -0.125], "-0.125")],
)
def test_a_grid_that_does_not_decrease_is_told_where(sigmas, value):
    with pytest.raises(GridError) as error:
        check_grid(sigmas, EDM)
    assert value in str(error.value)
