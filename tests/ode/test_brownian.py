"""Brownian paths: normal, independent, and the same whatever was asked of them before."""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

from ddim_ode.ode.brownian import KEPT, LOT, Brownian, BrownianError
from tests.helpers.assertions import one_line
from tests.helpers.pretending import GPU, pretended

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")


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


@pytest.mark.parametrize("shape", [(3,), (LOT // 2 + 1,), (LOT + 5,), (2, LOT)])
def test_a_sample_is_the_same_in_whatever_batch(shape):
    """Of one that fills a lot, of many in one, and of one that is cut into several."""
    batch, alone = Brownian([4, 7, 11], shape), Brownian([7], shape)
    for ends in pairwise([40.0, 9.0, 8.0, 0.1]):
        for together, own in zip(batch.increment(*ends), alone.increment(*ends), strict=True):
            assert together.shape == (3, *shape)
            assert torch.equal(together[1:2], own)


def test_going_back_and_jumping_leads_to_what_going_on_does():
    """To the bit, whatever of a way down was kept."""
    sigmas = [float(sigma) for sigma in np.geomspace(50, 0.01, 40)]
    steps = list(pairwise(sigmas))
    forth = Brownian([5], (6,), dtype=torch.float64)
    expected = {ends: forth.increment(*ends) for ends in steps}
    other = Brownian([5], (6,), dtype=torch.float64)
    others = [steps[k] for k in np.random.default_rng(1).permutation(39)]
    for ends in [*steps[::-1], *others, *steps[::3], *steps]:
        for x, y in zip(other.increment(*ends), expected[ends], strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("device", [GPU, pytest.param(torch.device("cuda"), marks=CUDA)], ids=str)
def test_a_device_draws_the_same_path_itself(device):
    """Of the same integers: all but the last places of log, cos and sin. It waits for nothing."""
    here = Brownian([0, 2**64 - 1, -3], (5, 7))
    with pretended() as mode:
        there = Brownian([0, 2**64 - 1, -3], (5, 7), device)
        for ends in pairwise([60.0, 3.0, 2.9, 0.02]):
            for x, y in zip(there.increment(*ends), here.increment(*ends), strict=True):
                assert x.device.type == device.type
                assert mode.waits == []
                torch.testing.assert_close(x.to("cpu"), y, rtol=1e-5, atol=1e-5)
                mode.waits.clear()


def test_what_is_kept_does_not_grow_with_the_steps():
    """Nodes at the top of the tree alone, and where the path is: bytes, of arrays of 8 bytes a number."""

    def held(steps: int) -> float:
        brownian = Brownian([0, 1], (512,))
        for ends in pairwise(float(sigma) for sigma in np.geomspace(80, 0.01, steps + 1)):
            brownian.increment(*ends)
        return len(pickle.dumps(brownian)) / (8 * 2 * 512)

    few, many = held(10), held(150)
    assert few < many < 4 * (KEPT + 1) + 4
    assert held(400) == pytest.approx(many, abs=0.5)
