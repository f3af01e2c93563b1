"""Explicit grids as others round them, and what no grid can be made of."""

import math

import pytest
import torch

from ddim_ode import grids, paths
from ddim_ode.grids import GRIDS, MOST_INTERVALS, GridError, check_grid, make_grid
from ddim_ode.support.checks import ArgumentError

EDM = paths.Noise(0.002, 80.0)


@pytest.mark.parametrize(
    ("first", "most"),
    [
        (14.615, 14.6146),  # a published table and the schedule that it is of
        (float(torch.tensor(math.log(50.0)).exp()), 50.0),  # 50.000004, by an exponential in float32
        (float(torch.tensor(0.1)), 0.1),
        (80 * (1 + 9.9e-5), 80.0),
    ],
)
def test_a_grid_that_begins_above_by_rounding_begins_at_sigma_max(first, most):
    assert first > most
    found = check_grid([first, 0.05, 0.0], paths.Noise(0.002, most))
    assert found.tolist() == [most, 0.05, 0.0]


@pytest.mark.parametrize("first", [80.0, 79.99999, 80 * (1 + 1e-12)])
def test_what_needs_no_rounding_stays_to_the_bit(first):
    assert check_grid([first, 1e-4], EDM).tolist() == [first, 1e-4]


@pytest.mark.parametrize(
    ("sigmas", "first"), [([80.0081, 1], "80.0081"), ([80.02, 80.01], "80.02"), ([80.004, 80.002], "80.004")]
)
def test_more_than_rounding_is_refused_with_both_numbers_apart(sigmas, first):
    with pytest.raises(GridError, match=f"starts at sigma={first}; the model was trained up to 80, so"):
        check_grid(sigmas, EDM)


def test_as_many_digits_as_tell_two_numbers_apart():
    path = paths.Noise(0.002, 14.61464)
    with pytest.raises(GridError, match=r"sigma=14\.6146403; the model was trained up to 14\.61464,"):
        check_grid([14.6146403, 14.61464 * (1 + 1e-12)], path)


@pytest.mark.parametrize(
    "call",
    [
        *(
            lambda value=value: check_grid(value, EDM)
            for value in ("x", b"xx", {3: 1}, {3.0, 1.0}, object(), [3, 1j], [True])
        ),
        lambda: check_grid(torch.tensor([3, 1], device="meta"), EDM),
        lambda: check_grid(torch.tensor([3.0, 1.0]).to_sparse(), EDM),
        lambda: check_grid(range(10**12, 0, -1), EDM),
        lambda: check_grid(torch.zeros(1).expand(10**12), EDM),
        lambda: check_grid((s for s in (3.0, 1.0)), EDM),
        lambda: check_grid([3.0, 1.0], "x"),
        lambda: make_grid(3, EDM, 2, "denoise"),
        lambda: make_grid("karras", "x", 2, "denoise"),
        *(lambda n=n: make_grid("karras", EDM, n, "denoise") for n in (2.5, 10**10, -1, 0, True, None, "2")),
        lambda: make_grid("karras", EDM, 2, "y"),
        *(lambda name=name: GRIDS[name](EDM, 10**9) for name in GRIDS),
        *(lambda rho=rho: GRIDS["karras"](EDM, 3, rho) for rho in (0, -1, math.nan, "x", 1e9)),
    ],
)
def test_what_no_grid_can_be_made_of_is_refused_at_once(call):
    with pytest.raises((GridError, ArgumentError)) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_longest_grid():
    assert len(make_grid("log_snr", EDM, MOST_INTERVALS, "denoise")) == MOST_INTERVALS + 1


def test_a_rule_that_is_replaced_is_not_kept(monkeypatch):
    for rule in (grids.log_snr, grids.angle):
        monkeypatch.setattr(grids, "GRIDS", {**grids.GRIDS, "mine": rule})
        assert torch.equal(make_grid("mine", EDM, 6, "sigma_min"), rule(EDM, 7))
