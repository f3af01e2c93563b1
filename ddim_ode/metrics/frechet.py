"""The Frechet distance between the Gaussians fitted to two sets of features.

d^2 = |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))        Heusel et al. 2017, arXiv:1706.08500, Eq. 6

With S = F^T F, the eigenvalues of S1 S2 are the squared singular values of F1 F2^T, so Tr (S1 S2)^(1/2) is their plain
sum: no matrix root, no imaginary part to throw away, and of few samples of many features no D x D matrix at all.
"""

import torch
from torch import Tensor

from ddim_ode.metrics import checks
from ddim_ode.metrics.moments import Gaussian, moments


def fitted(name: str, x: Tensor) -> Gaussian:
    """The Gaussian of features x (N, D). Raises MetricError as `frechet_distance` does, naming x by `name`."""
    return moments(checks.features(name, x, least=2)).gaussian


def between(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance, >= 0."""
    checks.same_width(len(a.mean), len(b.mean))
    overlap = torch.linalg.svdvals(a.factor @ b.factor.mT).sum()
    distance = (a.mean - b.mean).square().sum() + a.factor.square().sum() + b.factor.square().sum() - 2 * overlap
    return max(float(distance), 0.0)  # rounding can leave -1e-15 for equal sets


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance between the Gaussians fitted to features a (N, D) and b (M, D); float64, >= 0.

    Heusel et al. 2017, Eq. 6, with unbiased covariances. Biased upwards for few samples: compare only distances that
    were made with the same N and M. Raises MetricError unless N, M >= 2, the widths agree and every value is finite.
    """
    return between(fitted("a", a), fitted("b", b))
