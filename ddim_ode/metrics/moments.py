"""Mean and covariance of features, of parts that are joined as exactly as if they had been one.

    S = sum_i (x_i - m)(x_i - m)^T = R^T R,    of a and b together:
    m = m_a + (m_b - m_a) n_b / n,    R = qr [R_a; R_b; sqrt(n_a n_b / n) (m_b - m_a)]

Chan, Golub and LeVeque 1979 (Stanford STAN-CS-79-773), with the triangle of a QR decomposition for S, whose condition
is the square root of that of S: small variances beside large ones are kept.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """mean (D,) and factor (R, D), float64, R <= D: the covariance is factor^T factor."""

    mean: Tensor
    factor: Tensor

    @property
    def covariance(self) -> Tensor:
        """(D, D)."""
        return self.factor.mT @ self.factor


class Moments(NamedTuple):
    """n features, mean (D,) and root (R, D), float64, R <= D: root^T root is the sum of (x - mean)(x - mean)^T."""

    n: int
    mean: Tensor
    root: Tensor

    @property
    def gaussian(self) -> Gaussian:
        """Of the unbiased covariance; n must be 2 at least."""
        return Gaussian(self.mean, self.root / (self.n - 1) ** 0.5)


def moments(x: Tensor) -> Moments:
    """Of features x (N, D), float64, N >= 1."""
    mean = x.mean(0)
    return Moments(len(x), mean, _triangle(x - mean))


def merged(a: Moments, b: Moments) -> Moments:
    """The moments of two sets together."""
    n, gap = a.n + b.n, b.mean - a.mean
    between = gap * (a.n * b.n / n) ** 0.5
    return Moments(n, a.mean + gap * (b.n / n), _triangle(torch.cat([a.root, b.root, between[None]])))


def _triangle(rows: Tensor) -> Tensor:
    """No more rows than columns, with the same rows^T rows."""
    return torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows
