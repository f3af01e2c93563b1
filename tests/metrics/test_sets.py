"""Distances between sets: against loops over samples, closed forms, and optimal transport by linear programming."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.stats import norm
from sklearn.neighbors import NearestNeighbors

from ddim_ode.data import to_float
from ddim_ode.metrics import (
    MetricError,
    TooFewError,
    frechet_distance,
    kid,
    manifolds,
    precision_recall,
    sliced,
    sliced_wasserstein,
)
from tests.helpers.common import f64, normal, one_line


def whitened(count: int, width: int, seed: int) -> torch.Tensor:
    """Normal points whose sample mean is 0 and covariance the identity, both exactly."""
    x = normal(count, width, seed=seed)
    return torch.linalg.qr(x - x.mean(0)).Q * (count - 1) ** 0.5


def turn(width: int) -> torch.Tensor:
    return torch.linalg.qr(normal(width, width, seed=width)).Q


# --- Frechet


def test_the_frechet_distance_of_fewer_samples_than_features_is_that_in_the_plane_they_span():
    a, b = normal(6, 3, seed=0), 2 * normal(9, 3, seed=1) + 1
    wide = torch.linalg.qr(normal(50, 3, seed=2)).Q.mT
    assert frechet_distance(a @ wide, b @ wide) == pytest.approx(frechet_distance(a, b), rel=1e-12)
    # Two points each, in orthogonal planes: no overlap is left of |m1 - m2|^2 + Tr S1 + Tr S2
    a, b = f64([[1, 0, 0], [-1, 0, 0]]), f64([[0, 2, 1], [0, -2, 1]])
    assert frechet_distance(a, b) == pytest.approx(1 + 2 + 8, rel=1e-12)


# --- KID


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


# --- precision and recall


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


# --- sliced Wasserstein


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


# --- all of them


def test_no_global_generator_is_used():
    before = torch.random.get_rng_state()
    a, b = normal(12, 3, seed=30), normal(15, 3, seed=31)
    for metric in (kid, precision_recall, sliced_wasserstein, frechet_distance):
        assert metric(a, b) == metric(a, b)
    assert torch.equal(torch.random.get_rng_state(), before)


NAN = torch.full((12, 4), torch.nan)


@pytest.mark.parametrize(
    ("metric", "least"),
    [(frechet_distance, 2), (kid, 10), (precision_recall, 4)],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_features_that_cannot_be_compared_are_refused(metric, least):
    a = normal(12, 4, seed=32)
    metric(a[:least], a[:least])
    message = one_line(TooFewError, metric, a, a[: least - 1])
    assert message == f"b has shape ({least - 1}, 4), expected features (N, D) with N >= {least}"
    for x, message in (
        (a[0], "a has shape (4,)"),
        (a[:, :0], "a has shape (12, 0)"),
        (a[:, :3], "a has 3 features and b has 4"),
        (NAN, "a holds values that are not finite"),
    ):
        assert message in one_line(MetricError, metric, x, a)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: precision_recall(a, a, k=0), "k=0 must be a whole number >= 1"),
        (lambda a: precision_recall(a, a, k=12), "N >= 13"),
        (lambda a: precision_recall(a, a, k=2.5), "k=2.5 must be a whole number"),
        (lambda a: kid(a, a, seed=0.5), "seed=0.5 must be a whole number"),
        (lambda a: sliced_wasserstein(a, a, projections=0), "projections=0 must be a whole number >= 1"),
        (lambda a: sliced_wasserstein(a, a, seed="x"), "seed='x' must be a whole number"),
        (lambda a: sliced_wasserstein(a, a[:0]), "y has shape (0, 4), expected at least one image"),
        (lambda a: sliced_wasserstein(a[0], a), "x has shape (4,)"),
        (lambda a: sliced_wasserstein(a, a[:, :3]), "x has shape (12, 4) and y has (12, 3)"),
        (lambda a: sliced_wasserstein(a, NAN), "y holds values that are not finite"),
        (lambda a: sliced_wasserstein(a.long(), a), "x is torch.int64, expected"),
    ],
)
def test_other_arguments_that_make_no_sense_are_refused(call, message):
    assert message in one_line(MetricError, call, normal(12, 4, seed=33))
