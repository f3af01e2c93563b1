"""The kernel distance: the squared maximum mean discrepancy with a cubic kernel, and its standard error.

    MMD^2 = E k(a, a') + E k(b, b') - 2 E k(a, b),    k(x, y) = (x.y / D + 1)^3

Binkowski et al. 2018, arXiv:1801.01401, section 4, estimated without bias from all pairs of different samples (Gretton
et al. 2012, JMLR 13, Lemma 6). Its error is a jackknife's: both sets are cut into GROUPS random groups, and the
estimate is made again with each left out. On average that is not too small (Efron and Stein 1981).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.metrics import checks

GROUPS = 10


class Kid(NamedTuple):
    """value: unbiased, so it can be negative. error: its standard error."""

    value: float
    error: float


class Grouped(NamedTuple):
    """Features in GROUPS random groups, and the sums of the kernel over each two of them, (GROUPS, GROUPS).

    `within` leaves out each sample with itself.
    """

    groups: tuple[Tensor, ...]
    within: Tensor


def kid(a: Tensor, b: Tensor, seed: int = 0) -> Kid:
    """Squared maximum mean discrepancy between features a (N, D) and b (M, D), with its standard error.

    The mean does not depend on N and M, so values of any size can be compared, with published ones in the same
    features too. `seed` cuts the groups, on which the error depends and the value does not; the error is
    itself known to about a quarter, and of few samples it is more often too large than too small.
    Published errors are often the spread of 100 overlapping subsets, which is another quantity.
    Raises MetricError unless N, M >= 10, the widths agree and every value is finite.
    """
    return between(grouped("a", a, seed), grouped("b", b, seed))


def grouped(name: str, x: Tensor, seed: int) -> Grouped:
    """Features x (N, D) in groups. Raises MetricError as `kid` does, naming x by `name`."""
    x = checks.features(name, x, least=GROUPS)
    # Not a function of the name: what is paired in two sets of one size, such as by a seed, is then left out together.
    order = torch.randperm(len(x), generator=checks.generator(seed, "groups"))
    groups = x[order].tensor_split(GROUPS)
    themselves = torch.stack([_kernel_of_squares(group).sum() for group in groups])
    return Grouped(groups, _sums(groups, groups) - torch.diag(themselves))


def between(a: Grouped, b: Grouped) -> Kid:
    """The distance and its error."""
    checks.same_width(a.groups[0].shape[1], b.groups[0].shape[1])
    across = _sums(a.groups, b.groups)
    sizes_a, sizes_b = (torch.tensor([len(group) for group in x.groups], dtype=torch.float64) for x in (a, b))

    def estimate(kept: Tensor) -> Tensor:
        n, m = kept @ sizes_a, kept @ sizes_b
        same = kept @ a.within @ kept / (n * (n - 1)) + kept @ b.within @ kept / (m * (m - 1))
        return same - 2 * (kept @ across @ kept) / (n * m)

    everything = torch.ones(GROUPS, dtype=torch.float64)
    left_out = torch.stack([estimate(everything - one) for one in torch.eye(GROUPS, dtype=torch.float64)])
    variance = (GROUPS - 1) / GROUPS * (left_out - left_out.mean()).square().sum()
    return Kid(float(estimate(everything)), float(variance.sqrt()))


def _sums(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([torch.stack([(x @ y.mT).div_(x.shape[1]).add_(1).pow_(3).sum() for y in b]) for x in a])


def _kernel_of_squares(x: Tensor) -> Tensor:
    return (x.square().mean(1) + 1) ** 3
