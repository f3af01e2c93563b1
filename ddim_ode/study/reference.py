"""The reference of a study: the flow's own samples, solved until two resolutions agree.

The `adaptive` method runs in float64 at the tolerance asked for, then at a third of it, and so on. Two runs in a row
differ by about the error of the coarser one, so their difference bounds that of the finer one, which is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.options import LEAST_TOL, SolveOptions
from ddim_ode.planning.plan import Callback
from ddim_ode.sampling import sample_with

METHOD = "adaptive"
FINER = 1 / 3  # of the tolerance, from one resolution to the next
MOST_RUNS = 8
MOST_NFE = 5000  # of a sample, in one run
ON_CPU = 16  # samples at once, where more are no faster and leave other processes nothing to share


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


class Part(NamedTuple):
    """Samples x (B, *shape) float64 at one resolution, the evaluations of each (B,), and whether it converged (B,)."""

    x: Tensor
    nfe: Tensor
    converged: Tensor


def solve_reference(
    model: Model,
    options: SolveOptions,
    seeds: Sequence[int],
    labels: Told,
    wanted: float,
) -> Reference:
    """Samples that are refined until nine in ten agree to `wanted`; see `solved` and `refined`, and their arguments."""
    return refined(lambda number, tol: solved(model, options, seeds, labels, tol), wanted)


def solved(
    model: Model,
    options: SolveOptions,
    seeds: Sequence[int],
    labels: Told,
    tol: float,
    callback: Callback | None = None,
) -> Part:
    """Samples at one resolution, of which a batch is the same whatever others there are.

    Args:
        options: those of the study. The reference has a method, a tolerance and a precision of its own, and neither a
            budget nor a grid nor noise. The state is float64; a network computes in its own precision.

    Raises as `sample`.
    """
    own = replace(
        options,
        method=METHOD,
        nfe=None,
        tol=tol,
        max_nfe=MOST_NFE,
        grid=None,
        eta=None,
        eta_range=None,
        dtype=torch.float64,
    )
    found = sample_with(model, own, seeds=seeds, labels=labels, callback=callback)
    return Part(found.x.cpu(), found.nfe, found.converged)


def refined(solve: Callable[[int, float], Part], wanted: float) -> Reference:
    """Refine until nine in ten samples agree to `wanted`, RMS over a sample in data units.

    Args:
        solve: samples at a resolution, from 1, and its tolerance.
        wanted: the change from one resolution to the next that is small enough. After 8 resolutions, or below the
            least tolerance, the last one is kept as it is: `agreed` says so, and `median` and `rms` how far it is.
    """
    tol = wanted
    part = solve(1, tol)
    for number in range(2, MOST_RUNS + 1):
        tol = max(tol * FINER, LEAST_TOL[torch.float64])
        finer = solve(number, tol)
        change = rms_each(finer.x - part.x)
        part = finer
        agreed = bool(part.converged.all()) and float(change.quantile(0.9)) <= wanted
        if agreed or tol == LEAST_TOL[torch.float64]:
            break
    errors = float(change.median()), float(change.square().mean().sqrt())
    return Reference(part.x, tol, float(part.nfe.double().mean()), wanted, *errors, agreed)


def rms_each(x: Tensor) -> Tensor:
    """Root mean square over each sample, (B,) float64."""
    return x.double().reshape(len(x), -1).square().mean(1).sqrt()
