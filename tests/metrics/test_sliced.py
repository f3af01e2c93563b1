"""The sliced Wasserstein distance against optimal transport by linear programming, and in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.stats import norm

from ddim_ode.data import to_float
from ddim_ode.metrics import sliced, sliced_wasserstein
from tests.helpers.tensors import f64, normal, whitened


def transport(x: list[float], y: list[float]) -> float:
    """The distance of order 2 between equal weights on x and on y, by the linear programme of moving mass."""
    n, m = len(x), len(y)
    cost = [(p - q) ** 2 for p in x for q in y]
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    found = linprog(cost, A_eq=np.vstack([rows, columns]), b_eq=[1 / n] * n + [1 / m] * m)
    return math.sqrt(found.fun)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (5, 7), (9, 3), (1, 4)])
def test_on_a_line_it_is_optimal_transport(n, m):
    x, y = normal(n, 1, seed=20), 2 * normal(m, 1, seed=21) + 1
    expected = transport(x.flatten().tolist(), y.flatten().tolist())
    assert sliced_wasserstein(x, y, projections=2) == pytest.approx(expected, rel=1e-9)


def test_two_gaussians_on_a_line():
    """W^2 = (m - n)^2 + (s - t)^2, from quantiles, with what a set of N of them lacks of the variance."""
    x, y = (f64(norm.ppf((np.arange(n) + 0.5) / n)).unsqueeze(1) for n in (20_000, 30_000))
    found = sliced_wasserstein(0.3 + 0.5 * x, 1.1 + 2.0 * y, projections=1)
    assert found == pytest.approx(math.hypot(0.8, 1.5), rel=1e-4)


def test_two_gaussians_in_space():
    x, y = (whitened(n, 6, seed=n).reshape(n, 1, 2, 3) for n in (3000, 2000))
    shift = normal(1, 2, 3, seed=24)
    found = sliced_wasserstein(0.5 * x, 2.0 * y + shift, projections=1500)
    closed = math.sqrt(shift.square().sum() / 6 + 1.5**2)
    assert found == pytest.approx(closed, rel=0.005)
    assert sliced_wasserstein(x, y) < 0.06


def test_the_sliced_distance_of_a_shift_is_its_mean_square_along_the_directions():
    x, shift = normal(30, 1, 4, 4, seed=25), normal(1, 4, 4, seed=26)
    found = sliced_wasserstein(x, x + shift, projections=20_000)
    assert found == pytest.approx(float(shift.square().mean().sqrt()), rel=0.01)


def test_the_sliced_distance_is_a_distance_of_sets(monkeypatch):
    x, y = normal(12, 1, 3, 3, seed=27), 2 * normal(8, 1, 3, 3, seed=28)
    found = sliced_wasserstein(x, y, seed=5)
    assert sliced_wasserstein(x, x.flip(0)) == 0
    assert sliced_wasserstein(y, x, seed=5) == pytest.approx(found, rel=1e-12)
    assert sliced_wasserstein(x.flip(0) + 3, y + 3, seed=5) == pytest.approx(found, rel=1e-9)
    assert sliced_wasserstein(10 * x, 10 * y, seed=5) == pytest.approx(10 * found, rel=1e-12)
    assert sliced_wasserstein(x.repeat(3, 1, 1, 1), y, seed=5) == pytest.approx(found, rel=1e-12)
    assert sliced_wasserstein(x, y, seed=6) != found
    monkeypatch.setattr(sliced, "CHUNK", 20)
    assert sliced_wasserstein(x, y, seed=5) == pytest.approx(found, rel=1e-12)


def test_the_sliced_distance_takes_bytes():
    x = torch.randint(256, (9, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(29))
    y = torch.zeros(4, 3, 2, 2)
    assert sliced_wasserstein(x, y) == sliced_wasserstein(to_float(x), y)
