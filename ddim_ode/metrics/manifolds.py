"""Precision and recall: the share of one set that lies on the manifold of the other.

A set's manifold is the union of balls about its points, each as wide as the distance to the point's k-th nearest
neighbour in the set: Kynkaanniemi et al. 2019, arXiv:1904.06991, Eq. 1 and 2.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.metrics import checks
from ddim_ode.support.checks import whole

CHUNK = 2**20  # distances held at once, 8 MiB, several times over
EQUAL = 1e-12  # of |x|^2 + |y|^2: what rounding leaves of the squared distance of two equal points, and more


class PrecisionRecall(NamedTuple):
    """Shares in 0..1. precision: of a, on the manifold of b. recall: of b, on the manifold of a."""

    precision: float
    recall: float


def precision_recall(a: Tensor, b: Tensor, k: int = 3) -> PrecisionRecall:
    """Precision and recall of samples with features a (N, D) against real images with features b (M, D).

    Both depend on N and M, as the balls shrink where points get denser: compare only what was made with the same, and
    best with N = M, as the paper does. Memory is bounded whatever N and M.
    Raises MetricError unless N, M > k >= 1, the widths agree and every value is finite.
    """
    k = whole("k", k, checks.MetricError)
    a, b = checks.features("a", a, least=k + 1), checks.features("b", b, least=k + 1)
    checks.same_width(a.shape[1], b.shape[1])
    a, b = a - b.mean(0), b - b.mean(0)  # distances stay, and lose less to rounding
    radii_a, radii_b = _radii(a, k), _radii(b, k)
    in_a, in_b = torch.zeros(len(b), dtype=torch.bool), torch.zeros(len(a), dtype=torch.bool)
    for rows, distances in squared_distances(a, b):
        in_a |= (distances <= radii_a[rows, None]).any(0)
        in_b[rows] = (distances <= radii_b).any(1)
    return PrecisionRecall(float(in_b.double().mean()), float(in_a.double().mean()))


def squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """|a_i - b_j|^2 of float64 a (N, D) and b (M, D), some rows (n, M) at a time, with their place in a.

    What is within EQUAL of zero is zero.
    """
    squares_a, squares_b = a.square().sum(1), b.square().sum(1)
    step = max(1, CHUNK // len(b))
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        size = squares_a[rows, None] + squares_b
        distances = size - 2 * (a[rows] @ b.mT)
        yield rows, torch.where(distances > EQUAL * size, distances, 0)


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distances to the k-th nearest neighbours, (N,); the nearest of all is the point itself."""
    found = torch.empty_like(x[:, 0])  # made before all else, so that what is freed meanwhile is in one piece
    for rows, distances in squared_distances(x, x):
        found[rows] = distances.kthvalue(k + 1).values
    return found
