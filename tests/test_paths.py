"""Paths against the formulas of their papers, written out by hand, and against derivatives taken numerically."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from ddim_ode import paths
from ddim_ode.continuous import VESDE, VPSDE, Cosine, Preconditioned, TimedFlow
from ddim_ode.paths import DiscreteVP, PathError
from tests.helpers.tables import PATHS, cosine_table, linear_table
from tests.helpers.tensors import f64

CONTINUOUS = ["noise", "data", "angle", "flow"]
DISCRETE = [name for name in PATHS if name not in CONTINUOUS]

#: (a, b) as functions of u, as the papers give them
FORMULAS = {
    "noise": lambda u: (torch.ones_like(u), u),
    "data": lambda u: (u, torch.ones_like(u)),
    "angle": lambda u: (torch.cos(u), torch.sin(u)),
    "flow": lambda u: (1 - u, u),
}


def sigmas(path: paths.Path, count: int = 41) -> torch.Tensor:
    """sigma from end to end of a discrete path, or from 1/500 to 500 on a continuous one."""
    low, high = max(path.sigma_min, 2e-3), min(path.sigma_max, 5e2)
    return torch.exp(torch.linspace(math.log(low), math.log(high), count, dtype=torch.float64))


def inner_times(path: paths.Path) -> torch.Tensor:
    """Times away from the nodes of a discrete path, where its slope jumps."""
    if path.num_timesteps:
        return torch.arange(0, path.num_timesteps - 1, max(1, path.num_timesteps // 40), dtype=torch.float64) + 0.37
    return path.u(sigmas(path))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_coefficients_are_the_formula(name):
    path = PATHS[name]
    u = path.u(sigmas(path))
    for got, expected in zip(path.coefficients(u), FORMULAS[name](u), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_slopes_are_the_derivatives_of_the_formula(name):
    u = PATHS[name].u(sigmas(PATHS[name])).requires_grad_()
    for slope, coefficient in zip(PATHS[name].slopes(u), FORMULAS[name](u), strict=True):
        expected = torch.zeros_like(u)
        if coefficient.requires_grad:
            (expected,) = torch.autograd.grad(coefficient.sum(), u, retain_graph=True)
        torch.testing.assert_close(slope, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", PATHS)
def test_slopes_are_the_differences_of_the_coefficients(name):
    path = PATHS[name]
    u = inner_times(path)
    h = 1e-3 if path.num_timesteps else 1e-3 * torch.minimum(u, (path.u(f64(1e9)) - u).abs())
    near, far = ([path.coefficients(u + k * h) for k in (-i, i)] for i in (1, 2))
    for i, slope in enumerate(path.slopes(u)):
        # five points: the error is of order h^4
        expected = (8 * (near[1][i] - near[0][i]) - (far[1][i] - far[0][i])) / (12 * h)
        torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PATHS)
def test_sigma_and_u_are_inverse(name):
    path = PATHS[name]
    s = sigmas(path)
    torch.testing.assert_close(path.sigma(path.u(s)), s, rtol=1e-12, atol=0)
    u = inner_times(path)
    torch.testing.assert_close(path.u(path.sigma(u)), u, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PATHS)
def test_sigma_is_the_ratio_and_scale_is_a(name):
    path = PATHS[name]
    s = sigmas(path)
    a, b = path.coefficients(path.u(s))
    torch.testing.assert_close(b / a, s, rtol=1e-12, atol=0)
    torch.testing.assert_close(path.scale(s), a, rtol=1e-11, atol=0)
    assert a.dtype == b.dtype == torch.float64


@pytest.mark.parametrize("name", ["angle", *DISCRETE])
def test_variance_is_preserved(name):
    a, b = PATHS[name].coefficients(inner_times(PATHS[name]))
    torch.testing.assert_close(a**2 + b**2, torch.ones_like(a), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", PATHS)
def test_any_shape_goes_through(name):
    path = PATHS[name]
    s = sigmas(path, 6).reshape(2, 3)
    u = path.u(s)
    for values in [u, path.sigma(u), path.scale(s), *path.coefficients(u), *path.slopes(u)]:
        assert values.shape == (2, 3)
    assert path.u(s[1, 2]).shape == ()
    assert path.u(s)[1, 2] == path.u(s[1, 2])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (paths.noise, 7.0),  # x = sigma z
        (paths.data, 7.0),  # x = z with a = 1 / sigma
        (paths.angle, math.sqrt(50)),
        (paths.flow, 8.0),  # x = z with a = 1 / (1 + sigma)
        (PATHS["linear"], math.sqrt(50)),
    ],
)
def test_prior_is_the_one_the_model_was_trained_with(path, expected):
    assert float(path.prior_std(f64(7.0))) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("path", "table"),
    [
        (DiscreteVP.linear(), linear_table()),
        (DiscreteVP.linear(50), linear_table(50)),
        (DiscreteVP.cosine(), cosine_table()),
        (DiscreteVP.cosine(32), cosine_table(32)),
        (DiscreteVP([0.9, 0.5, 0.1]), [0.9, 0.5, 0.1]),
        (DiscreteVP(torch.tensor([0.75, 0.5, 0.125])), [0.75, 0.5, 0.125]),
        (DiscreteVP.from_betas([0.1, 0.2, 0.5]), [0.9, 0.72, 0.36]),
        (DiscreteVP.scaled_linear(3, 0.01, 0.25), [0.99, 0.99 * (1 - 0.09), 0.99 * (1 - 0.09) * 0.75]),  # 0.1, 0.3, 0.5
    ],
)
def test_the_nodes_of_a_discrete_path_are_its_table(path, table):
    assert path.num_timesteps == len(table)
    a, b = path.coefficients(torch.arange(len(table), dtype=torch.float64))
    torch.testing.assert_close(a, f64([math.sqrt(abar) for abar in table]), rtol=1e-12, atol=0)
    torch.testing.assert_close(b, f64([math.sqrt(1 - abar) for abar in table]), rtol=1e-11, atol=0)
    assert path.sigma_min == pytest.approx(math.sqrt(1 / table[0] - 1), rel=1e-11)
    assert path.sigma_max == pytest.approx(math.sqrt(1 / table[-1] - 1), rel=1e-12)


def test_the_linear_schedule_ends_where_ddpm_says():
    # Ho et al. 2020, Sec. 4: KL(q(x_T | x_0) || N(0, I)) of about 1e-5 bits a dimension
    abar = float(DiscreteVP.linear().alphas_cumprod[-1])
    assert abar == pytest.approx(4.0358e-5, rel=1e-4)
    assert 0.5 * (abar - abar - math.log1p(-abar)) / math.log(2) < 3e-5


@pytest.mark.parametrize(("t", "weight"), [(0.25, 0.25), (17.5, 0.5), (998.875, 0.875)])
def test_between_the_nodes_log_sigma_is_linear(t, weight):
    table = linear_table()
    low, high = (math.log(1 / table[k] - 1) / 2 for k in (math.floor(t), math.ceil(t)))
    expected = math.exp((1 - weight) * low + weight * high)
    assert float(DiscreteVP.linear().sigma(f64(t))) == pytest.approx(expected, rel=1e-11)


def test_outside_its_range_time_is_clamped_and_scale_is_not():
    path = DiscreteVP.linear()
    low, high = path.sigma_min / 10, path.sigma_max * 10
    assert path.u(f64([0.0, low, high])).tolist() == [0.0, 0.0, 999.0]
    assert path.scale(f64([low, high])).tolist() == pytest.approx([(1 + s**2) ** -0.5 for s in (low, high)], rel=1e-14)
    assert path.sigma(f64([-5.0, 1e4])).tolist() == [path.sigma_min, path.sigma_max]


def test_zero_terminal_snr_ends_at_the_largest_finite_sigma():
    path = DiscreteVP([0.9, 0.5, 0.02, 0.0])
    assert path.num_timesteps == 4
    assert path.sigma_max == pytest.approx(7.0, rel=1e-13)
    assert path.u(f64(path.sigma_max)) == 2
    assert path.sigma(f64(3.0)) == path.sigma_max


def test_rescaling_to_zero_snr_shifts_and_scales_the_roots():
    path = DiscreteVP([0.81, 0.49, 0.16, 0.01])
    rescaled = path.to_zero_snr()
    # roots 0.9, 0.7, 0.4, 0.1 less 0.1, times 0.9 / 0.8
    expected = [0.9**2, (0.6 * 1.125) ** 2, (0.3 * 1.125) ** 2]
    assert rescaled.alphas_cumprod == pytest.approx(expected, rel=1e-12)
    assert rescaled.num_timesteps == 4
    assert rescaled.zero_terminal_snr
    assert rescaled.to_zero_snr() == rescaled


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([0.5], "has 1 values above 0; it must have at least 2"),
        (0.5, r"shape \(\); it must be a sequence"),
        ([[0.9, 0.5]], r"shape \(1, 2\); it must be a sequence"),
        ([0.5, 0.9], "runs from 0.5 to 0.9; it must decrease strictly inside"),
        (np.linspace(1e-4, 0.02, 1000), "runs from 0.0001 to 0.02.*not the betas"),
        ([0.9, 0.5, 0.5, 0.1], "must decrease strictly"),
        ([1.0, 0.5], "runs from 1 to 0.5; it must decrease strictly inside"),
        ([0.9, 0.5, -0.1], "runs from 0.9 to -0.1"),
        ([0.9, math.nan, 0.1], "must decrease strictly"),
        ([0.9, 0.0, 0.0], "must decrease strictly"),
        ([0.5, 0.0], "alphas_cumprod"),  # one noise level is no path
    ],
)
def test_a_table_that_is_no_schedule_is_refused(table, message):
    with pytest.raises(PathError, match=message):
        DiscreteVP(table)


def test_a_path_is_immutable_and_does_not_keep_the_callers_table():
    with pytest.raises(dataclasses.FrozenInstanceError):
        paths.Noise(0.002, 80.0).sigma_max = 1.0
    table = np.array([0.9, 0.5, 0.1])
    path = DiscreteVP(table)
    table[:] = 0.3
    assert path.alphas_cumprod.tolist() == [0.9, 0.5, 0.1]


def test_paths_are_equal_when_their_schedules_are():
    assert paths.Noise(0.002, 80.0) == paths.Noise(0.002, 80.0) != paths.Noise(0.002, 81.0)
    assert DiscreteVP([0.9, 0.5, 0.1]) == DiscreteVP([0.9, 0.5, 0.1])
    assert DiscreteVP([0.9, 0.5, 0.1]) != DiscreteVP([0.9, 0.4, 0.1])
    assert DiscreteVP([0.9, 0.5, 0.1]) != DiscreteVP([0.9, 0.5, 0.2])


@pytest.mark.filterwarnings("error")
def test_a_path_is_made_of_the_table_of_another():
    path = DiscreteVP.cosine(50)
    assert DiscreteVP(path.alphas_cumprod) == path
    assert DiscreteVP(torch.tensor(path.alphas_cumprod, requires_grad=True)) == path


ODD = ["x", "0.9", None, True, 1j, [], {}, {0.5}, type, math.nan]


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize("name", ["sigma_min", "sigma_max"])
def test_an_end_that_is_no_number_is_named(name, value):
    for path in (paths.Noise, paths.Data, paths.Angle, paths.Flow, VESDE):
        with pytest.raises(PathError, match=f"{name}=.* must be a number"):
            path(**{"sigma_min": 0.1, "sigma_max": 9.0, name: value})


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (3.0, 2.0), (2.0, 2.0), (math.inf, math.inf)])
def test_ends_that_are_no_range_are_refused(low, high):
    for path in (paths.Noise, paths.Data, paths.Angle, paths.Flow, VESDE):
        with pytest.raises(PathError, match=r"sigma from .*; give 0 <"):
            path(low, high)


def test_ends_of_numpy_and_torch_are_those_of_python():
    for number in (np.float32, np.float64, torch.tensor):
        path = paths.Noise(number(0.25), number(8.0))
        assert path == paths.Noise(0.25, 8.0)
        assert hash(path) == hash(paths.Noise(0.25, 8.0))


@pytest.mark.parametrize(
    "make",
    [
        *(lambda value=value: DiscreteVP(value) for value in ODD if value is not math.nan),
        *(
            lambda value=value: DiscreteVP.from_betas(value)
            for value in ["x", None, {}, [[0.1], [0.2, 0.3]], [-0.1, 0.2]]
        ),
        lambda: DiscreteVP(["0.9", "0.5"]),
        lambda: DiscreteVP([0.9 + 0j, 0.5]),
        lambda: DiscreteVP(torch.tensor([0.9, 0.5], dtype=torch.complex64)),
        lambda: DiscreteVP(torch.zeros(3, device="meta")),
        lambda: DiscreteVP(range(10**12)),
        lambda: DiscreteVP.from_betas(torch.tensor([True, False])),
        lambda: DiscreteVP.linear(-1),
        lambda: DiscreteVP.linear(10**10),
        lambda: DiscreteVP.linear(1000, "a"),
        lambda: DiscreteVP.scaled_linear(10, -0.1),
        lambda: DiscreteVP.cosine(10**10),
        lambda: DiscreteVP.cosine(2.5),
        lambda: DiscreteVP.cosine(offset="x"),
        lambda: DiscreteVP.cosine(largest=math.inf),
        lambda: VPSDE(beta_max="x"),
        lambda: VPSDE(beta_max=1e300),
        lambda: Cosine(t_max="x"),
        lambda: TimedFlow(timesteps="x"),
        lambda: TimedFlow(timesteps=0.0),
        lambda: TimedFlow(shift=-1.0),
        lambda: Preconditioned(sigma_data=0.0),
        lambda: Preconditioned(sigma_data=None),
        lambda: Preconditioned(told="cosine"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_at_once(make):
    with pytest.raises(PathError) as caught:
        make()
    assert "\n" not in str(caught.value)
