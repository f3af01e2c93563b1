"""What a run returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """Samples and what they cost.

    x: (B, *shape) in the state's dtype, data range [-1, 1], not clipped; xbar at the last sigma.
    nfe: (B,) int64, network passes spent on each sample.
    steps, rejected: (B,) int64, accepted and rejected steps of each sample.
    sigmas: (N + 1,) float64, the grid; of an adaptive method (B, M), where each sample was, NaN after its last
        (`adaptive` may evaluate first within its first step).
    converged: (B,) bool, False where an adaptive method met max_nfe, or steps too small to go on, and took the rest in
        one DDIM step.
    tol: the tolerance of an adaptive method, whether given or found for a budget.
    """

    x: Tensor
    nfe: Tensor
    steps: Tensor
    rejected: Tensor
    sigmas: Tensor
    converged: Tensor
    tol: float | None = None
