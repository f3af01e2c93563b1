"""Precision and recall against loops over balls."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from ddim_ode.metrics import manifolds, precision_recall
from tests.helpers.tensors import normal, turn


def naive_precision_recall(a: np.ndarray, b: np.ndarray, k: int) -> tuple[float, float]:
    def share(points: np.ndarray, of: np.ndarray) -> float:
        radii = NearestNeighbors(n_neighbors=k).fit(of).kneighbors()[0][:, -1]  # without arguments: not oneself
        return float(np.mean([any(math.dist(p, c) <= r for c, r in zip(of, radii, strict=True)) for p in points]))

    return share(a, b), share(b, a)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (25, 60)])
def test_precision_and_recall_are_shares_inside_balls(monkeypatch, k, n, m):
    a, b = normal(n, 3, seed=12) + 1.5, normal(m, 3, seed=13)
    expected = naive_precision_recall(a.numpy(), b.numpy(), k)
    assert 0 < expected[0] < 1
    assert 0 < expected[1] < 1
    assert precision_recall(a, b, k) == expected
    monkeypatch.setattr(manifolds, "CHUNK", 100)
    assert precision_recall(a, b, k) == expected


def test_precision_and_recall_change_places_with_the_sets():
    a, b = normal(30, 4, seed=14), 2 * normal(50, 4, seed=15)
    found = precision_recall(a, b)
    assert found == precision_recall(b, a)[::-1]
    assert precision_recall(1e3 * (a @ turn(4)) + 7, 1e3 * (b @ turn(4)) + 7) == found


def test_precision_sees_outliers_and_recall_sees_lost_modes():
    mode, other = normal(40, 2, seed=16), normal(40, 2, seed=17) + 100
    both = torch.cat([mode, other])
    assert precision_recall(both, both) == (1, 1)
    assert precision_recall(mode, other) == (0, 0)
    precision, recall = precision_recall(normal(40, 2, seed=18), both)
    assert precision > 0.8
    assert 0.3 < recall <= 0.5


def test_samples_that_are_all_the_same_are_on_their_own_manifold_only():
    same = torch.full((20, 300), 1 / 3, dtype=torch.float64) * 1e3
    assert precision_recall(same, torch.cat([same[:4], normal(30, 300, seed=19) + 500])) == (1, 4 / 34)
