"""KID against loops over samples, and its closed form in one dimension."""

import math

import numpy as np
import pytest
import torch

from ddim_ode.metrics import kid
from tests.helpers.tensors import normal, turn


def naive_mmd(a: torch.Tensor, b: torch.Tensor) -> float:
    def k(x: list[float], y: list[float]) -> float:
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    p, q = a.tolist(), b.tolist()
    within = [mean([k(x, y) for i, x in enumerate(z) for j, y in enumerate(z) if i != j]) for z in (p, q)]
    return within[0] + within[1] - 2 * mean([k(x, y) for x in p for y in q])


@pytest.mark.parametrize(("n", "m", "width"), [(10, 10, 1), (13, 27, 3), (31, 12, 8)])
def test_kid_is_the_unbiased_estimate_over_all_pairs(n, m, width):
    a, b = normal(n, width, seed=3), 1.5 * normal(m, width, seed=4) + 0.3
    assert kid(a, b).value == pytest.approx(naive_mmd(a, b), rel=1e-10)


def test_the_error_of_kid_is_a_jackknife():
    """Ten groups of ten samples are the samples themselves, left out with their companion of the other set."""
    a, b = normal(10, 3, seed=5), 2 * normal(10, 3, seed=6)
    left_out = [naive_mmd(a[keep], b[keep]) for keep in ([j for j in range(10) if j != i] for i in range(10))]
    expected = math.sqrt(0.9 * sum((value - sum(left_out) / 10) ** 2 for value in left_out))
    assert kid(a, b).error == pytest.approx(expected, rel=1e-9)


def test_kid_finds_its_closed_form_and_its_own_spread():
    """In one dimension MMD^2 = 3 (E a - E b)^2 + 3 (E a^2 - E b^2)^2 + (E a^3 - E b^3)^2."""
    m, s, n, t = 0.7, 0.4, -0.1, 0.6
    moments = [(z, z * z + w * w, z**3 + 3 * z * w * w) for z, w in ((m, s), (n, t))]
    truth = sum(c * (p - q) ** 2 for c, p, q in zip((3, 3, 1), *moments, strict=True))
    draws = 200
    found = [kid(m + s * normal(60, 1, seed=i), n + t * normal(80, 1, seed=draws + i), seed=i) for i in range(draws)]
    values, errors = np.array(found).T
    spread = values.std(ddof=1)
    assert values.mean() == pytest.approx(truth, abs=3 * spread / draws**0.5)
    assert spread / draws**0.5 < truth  # what the line above could have missed
    assert 0.95 * spread < np.sqrt((errors**2).mean()) < 1.25 * spread  # a jackknife's is on the large side


def test_kid_is_symmetric_and_does_not_see_a_turn_or_the_seed():
    a, b = normal(25, 5, seed=8), normal(25, 5, seed=9) + 0.5
    found = kid(a, b, seed=1)
    assert kid(b, a, seed=1) == pytest.approx(found, rel=1e-9)
    assert kid(a @ turn(5), b @ turn(5), seed=1) == pytest.approx(found, rel=1e-9)
    other = kid(a, b, seed=2)
    assert other.value == pytest.approx(found.value, rel=1e-9)
    assert other.error != found.error
    assert kid(a, b, seed=1) == found
    assert found.error > 0
