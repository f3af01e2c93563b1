"""Moments of parts are those of the whole, where numbers are hard to add too."""

from functools import reduce

import pytest
import torch

from ddim_ode.metrics import frechet, frechet_distance
from ddim_ode.metrics.moments import merged, moments
from tests.helpers.tensors import normal

CASES = {
    "plain": normal(500, 8, seed=0),
    "more columns than rows": normal(30, 100, seed=1),
    "columns that are equal": normal(300, 6, seed=2)[:, [0, 1, 1, 2, 2, 2]],
    "a constant column": torch.cat([normal(200, 3, seed=3), torch.full((200, 1), 7.0, dtype=torch.float64)], 1),
    "scales from 1e-6 to 1e6": normal(400, 7, seed=4) * 10.0 ** torch.arange(-6, 7, 2),
    "far from zero": normal(400, 5, seed=5) + 1e6,
    "parts far from each other": normal(300, 4, seed=6)
    + 1e4 * torch.arange(300)[:, None].div(100, rounding_mode="floor"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [1, 7, 100, 250])
def test_merged_parts_are_the_whole(name, size):
    x = CASES[name]
    whole, parts = moments(x), reduce(merged, map(moments, x.split(size)))
    assert parts.n == len(x)
    assert parts.root.shape[0] <= x.shape[1]
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-13, atol=0)
    expected = (x - x.mean(0)).mT @ (x - x.mean(0)) / (len(x) - 1)
    scale = expected.diagonal().sqrt().clamp(min=1e-300)
    difference = (parts.gaussian.covariance - expected) / (scale[:, None] * scale)  # each entry on its own scale
    assert difference.abs().nan_to_num().max() < 1e-10


@pytest.mark.parametrize("name", CASES)
def test_the_frechet_distance_of_merged_parts_is_that_of_one_pass(name):
    x = CASES[name]
    y = x.flip(0) * 1.25 + 0.5
    a, b = (reduce(merged, map(moments, z.split(37))).gaussian for z in (x, y))
    assert frechet.between(a, b) == pytest.approx(frechet_distance(x, y), rel=1e-10)


def test_merging_does_not_mind_the_order_beyond_rounding():
    parts = [moments(part) for part in CASES["plain"].split(50)]
    a, b = reduce(merged, parts), reduce(merged, parts[::-1])
    torch.testing.assert_close(a.gaussian.covariance, b.gaussian.covariance, rtol=1e-12, atol=1e-14)
