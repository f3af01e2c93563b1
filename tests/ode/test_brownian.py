"""Brownian paths: normal, independent, and the same whatever was asked of them before."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from ddim_ode.ode.brownian import Brownian, BrownianError
from tests.helpers.assertions import one_line


def test_increments_are_normal_and_independent_with_the_area_that_belongs_to_them():
    brownian = Brownian(range(3000), (4,), dtype=torch.float64)
    sigmas = 300 * np.exp(-np.cumsum([0, 4, 2, 0.1, 0.002, 5e-4, 3]))
    z, u = (
        torch.stack(x).flatten(1) for x in zip(*(brownian.increment(*ends) for ends in pairwise(sigmas)), strict=True)
    )
    off = 4 / math.sqrt(z.shape[1])  # four standard errors, on fixed seeds
    assert z.mean(1).abs().max() < off
    assert (z.var(1) - 1).abs().max() < 1.5 * off
    assert (3 * u.var(1) - 1).abs().max() < 1.5 * off
    assert (2 * (z * u).mean(1) - 1).abs().max() < 2 * off
    assert (torch.corrcoef(z) - torch.eye(6)).abs().max() < off


@pytest.mark.parametrize("order", ["down", "any"])
def test_a_path_is_the_same_whatever_was_asked_before(order):
    sigmas = np.geomspace(40, 0.02, 33)
    fine = Brownian([7, 9], (3,), dtype=torch.float64)
    steps = list(pairwise(sigmas))
    asked = steps if order == "down" else [steps[k] for k in np.random.default_rng(0).permutation(32)]
    h = {ends: math.log(ends[0] / ends[1]) for ends in steps}
    found = {ends: fine.increment(*ends) for ends in asked}
    w = sum(math.sqrt(h[ends]) * found[ends][0] for ends in steps)
    area, so_far = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for ends in steps:
        area += h[ends] * so_far + h[ends] ** 1.5 * found[ends][1]
        so_far += math.sqrt(h[ends]) * found[ends][0]
    total = math.log(40 / 0.02)
    z, u = Brownian([9, 7], (3,), dtype=torch.float64).increment(40, 0.02)
    torch.testing.assert_close(w / math.sqrt(total), z.flip(0), rtol=0, atol=1e-9)
    torch.testing.assert_close(area / total**1.5, u.flip(0), rtol=0, atol=1e-6)


def test_noise_goes_down_and_not_beyond_its_reach():
    brownian = Brownian([0], (1,))
    assert "noise is drawn downwards" in one_line(BrownianError, brownian.increment, 1.0, 1.0)
    assert "beyond the Brownian paths" in one_line(BrownianError, brownian.increment, 1e9, 1.0)
