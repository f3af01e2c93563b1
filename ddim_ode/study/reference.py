"""The reference of a study: the flow's own samples, solved until two resolutions agree.

The `adaptive` method runs in float64 at the tolerance asked for, then at a third of it, and so on. Two runs in a row
differ by about the error of the coarser one, so their difference bounds that of the finer one, which is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.options import LEAST_TOL, SolveOptions
from ddim_ode.planning.plan import Progress
from ddim_ode.sampling import sample_with

METHOD = "adaptive"
FINER = 1 / 3  # of the tolerance, from one resolution to the next
MOST_RUNS = 8
MOST_NFE = 5000  # of a sample, in one run


class Reference(NamedTuple):
    """The samples x, (B, *shape) float64, and the median and RMS of their estimated errors.

    An error is the RMS over a sample. agreed: whether nine in ten samples changed by at most `wanted` from the
    resolution before.
    """

    x: Tensor
    tol: float
    nfe_mean: float
    wanted: float
    median: float
    rms: float
    agreed: bool


def solve_reference(
    model: Model,
    options: SolveOptions,
    seeds: Sequence[int],
    labels: Told,
    wanted: float,
    callback: Callable[[int, Progress], None] | None = None,
) -> Reference:
    """Refine until nine in ten samples agree to `wanted`, RMS over a sample in data units.

    Args:
        options: those of the study. The reference has a method, a tolerance and a precision of its own, and neither a
            budget nor a grid nor noise. The state is float64; a network computes in its own precision.
        wanted: the change from one resolution to the next that is small enough. After 8 resolutions, or below the
            least tolerance, the last one is kept as it is: `agreed` says so, and `median` and `rms` how far it is.
        callback: told which resolution, from 1, and its progress.

    Raises as `sample`.
    """

    options = replace(options, eta=None, eta_range=None)

    def run(number: int, tol: float) -> tuple[Tensor, float, bool]:
        own = replace(options, method=METHOD, nfe=None, tol=tol, max_nfe=MOST_NFE, grid=None, dtype=torch.float64)
        told = callback and partial(callback, number)
        found = sample_with(model, own, seeds=seeds, labels=labels, callback=told)
        return found.x.cpu(), float(found.nfe.double().mean()), bool(found.converged.all())

    tol = wanted
    x, _, _ = run(1, tol)
    for number in range(2, MOST_RUNS + 1):
        tol = max(tol * FINER, LEAST_TOL[torch.float64])
        finer, nfe, converged = run(number, tol)
        change = rms_each(finer - x)
        x = finer
        agreed = converged and float(change.quantile(0.9)) <= wanted
        if agreed or tol == LEAST_TOL[torch.float64]:
            break
    return Reference(x, tol, nfe, wanted, float(change.median()), float(change.square().mean().sqrt()), agreed)


def rms_each(x: Tensor) -> Tensor:
    """Root mean square over each sample, (B,) float64."""
    return x.double().reshape(len(x), -1).square().mean(1).sqrt()
