"""What every run has in common: a model, a method and where to go, for many samples in batches."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddim_ode.brownian import Brownian
from ddim_ode.denoiser import Model, NonFiniteError
from ddim_ode.grids import Final, Grid
from ddim_ode.guidance import Guided
from ddim_ode.ode import ProbabilityFlow
from ddim_ode.planning import (
    LEAST_TOL,
    SampleError,
    check_labels,
    check_seeds,
    control,
    plan,
    refuse_adaptive,
    span,
    whole,
)
from ddim_ode.solvers import Adaptive, Control, Method, Outcome, Solution, Watch, get_method, integrate
from ddim_ode.solvers.eta import EtaLike
from ddim_ode.solvers.stochastic import with_noise

DEFAULT_BATCH = 128
CALIBRATION = 8  # samples that a tolerance is looked for with

Done = TypeVar("Done")


class Progress(NamedTuple):
    """What a callback is told after every step of every batch."""

    samples: range  # which samples the batch holds
    step: int  # steps done, 1..steps
    steps: int | None  # None with an adaptive method
    share: float  # of the way, 0 to 1
    sigma: float  # reached; by the slowest, with an adaptive method
    xbar: Tensor  # (batch, *shape), the state x0 + sigma eps there


@dataclass(frozen=True)
class Job:
    """Many samples to carry in batches: by which model, guided or not, and which method, from where to where."""

    model: Model
    method: Method
    sigmas: Tensor  # (N + 1,) float64, or with an adaptive method its ends
    steering: Control | None  # of an adaptive method
    labels: Tensor | None  # (B,)
    batch_size: int
    seeds: tuple[int, ...] = ()  # (B,), of the noise on the way
    dtype: torch.dtype = torch.float32  # of it

    def flow(self, rows: slice, differentiable: bool = False) -> ProbabilityFlow:
        """The ODE of some of the samples, between the first sigma and the last above 0."""
        ends = sorted((float(self.sigmas[0]), float(self.sigmas[self.sigmas > 0][-1])))
        if not self.method.deterministic:  # they step below the next sigma, and churn above it
            ends = [0.0, max(ends[1], self.model.sigma_max)]
        labels = None if self.labels is None else self.labels[rows].to(self.model.device)
        ode = ProbabilityFlow(self.model, self.method.path, (ends[0], ends[1]), labels, differentiable)
        if not self.method.deterministic:
            ode.brownian = Brownian(self.seeds[rows], self.model.shape, self.model.device, self.dtype)
        return ode

    def carry(self, xbar: Tensor, rows: slice = slice(None), watch: Watch | None = None, keep: bool = False) -> Outcome:
        """One batch xbar (B, *shape) from the first sigma to the last; keep the graph or not."""
        ode, solver = self.flow(rows, keep), self.method.solver
        if isinstance(solver, Adaptive):
            assert self.steering is not None
            return solver.solve(ode, self.sigmas, xbar, self.steering, watch)
        return self.arrived(ode, integrate(ode, solver, self.sigmas, xbar, watch))

    def arrived(self, ode: ProbabilityFlow, x: Tensor) -> Outcome:
        """What a solver on a grid has to say of a batch."""
        count = len(x)
        return Outcome(
            x=x,
            nfe=torch.full((count,), int(ode.nfe)),
            steps=torch.full((count,), len(self.sigmas) - 1),
            rejected=torch.zeros(count, dtype=torch.int64),
            sigmas=self.sigmas.expand(count, -1),
            converged=torch.ones(count, dtype=torch.bool),
        )

    def each(
        self, total: int, go: Callable[[slice, Watch | None], Done], callback: Callable[[Progress], None] | None
    ) -> list[Done]:
        """What `go` makes of every batch. Raises NonFiniteError with the sample's index in the whole run."""
        done = []
        for first in range(0, total, self.batch_size):
            rows = range(first, min(first + self.batch_size, total))
            watch = watch_of(callback, rows, None if self.steering else len(self.sigmas) - 1)
            try:
                done.append(go(slice(rows.start, rows.stop), watch))
            except NonFiniteError as error:
                error.sample += first
                raise
        return done

    def solution(self, parts: Sequence[Outcome]) -> Solution:
        """The batches in one."""
        widest = max(part.sigmas.shape[1] for part in parts)
        return Solution(
            x=torch.cat([part.x for part in parts]),
            nfe=torch.cat([part.nfe for part in parts]),
            steps=torch.cat([part.steps for part in parts]),
            rejected=torch.cat([part.rejected for part in parts]),
            sigmas=torch.cat([pad(part.sigmas, (0, widest - part.sigmas.shape[1]), value=math.nan) for part in parts])
            if self.steering
            else self.sigmas,
            converged=torch.cat([part.converged for part in parts]),
            tol=self.steering.tol if self.steering else None,
        )


def prepare(
    model: Model,
    method: str | Method,
    nfe: int | None,
    count: int,
    labels: Tensor | Sequence[int] | int | None,
    guidance: float,
    grid: Grid | None,
    final: Final,
    dtype: torch.dtype,
    batch_size: int | None,
    tol: float | None,
    max_nfe: int | None,
    first_step: float | None = None,
    upward: bool = False,
    eta: EtaLike = None,
    eta_range: tuple[float, float] | None = None,
    seeds: Sequence[int] | None = None,
) -> Job:
    """The arguments of `sample`, checked, as a job for `count` samples; upward, from the image to the latent."""
    name = method if isinstance(method, str) else "this method"
    row = with_noise(get_method(method), name, eta, eta_range)
    if guidance != 1:
        if isinstance(model, Guided):
            raise SampleError(f"the model is guided already, at scale {model.scale:g}; leave guidance={guidance:g} out")
        model = Guided(model, guidance)
    if dtype not in (torch.float32, torch.float64):
        raise SampleError(f"dtype={dtype} is no dtype for a state; use torch.float32 or torch.float64")
    classes = check_labels(model, labels, count)
    size = whole("batch_size", DEFAULT_BATCH if batch_size is None else batch_size)
    steering: Control | None = None
    if row.adaptive:
        sigmas = span(model, name, grid, final)
        steering = control(name, tol, max_nfe, first_step, dtype)
        if nfe is not None:
            if tol is not None:
                raise SampleError(f"nfe={nfe} and tol={tol} contradict each other; give one")
            if upward:
                raise SampleError(f"nfe={nfe}: {name} finds the tolerance of a budget for sampling only; give tol")
            few = CALIBRATION if row.per_sample else min(size, count)  # what a batch shares depends on its size
            steering = calibrate(model, row, sigmas, whole("nfe", nfe), steering, classes is not None, few, dtype)
        elif (least := model.evaluations(float(sigmas[0]))) > steering.max_nfe:
            raise SampleError(
                f"max_nfe={max_nfe} is too small: one step costs {least} evaluations; use max_nfe >= {least}"
            )
    else:
        refuse_adaptive(name, {"tol": tol, "max_nfe": max_nfe, "first_step": first_step})
        sigmas = plan(model, row, nfe, grid, final, upward)
    if upward and sigmas[-1] == 0:
        raise SampleError("the grid ends at sigma=0, where no data lie; end at the model's sigma_min")
    paths = tuple(range(count) if seeds is None else seeds)
    return Job(model, row, sigmas.flip(0) if upward else sigmas, steering, classes, size, paths, dtype)


def calibrate(
    model: Model,
    method: Method,
    sigmas: Tensor,
    nfe: int,
    steering: Control,
    labelled: bool,
    count: int,
    dtype: torch.dtype,
) -> Control:
    """The tolerance, to an eighth of a decade, whose mean NFE over seeds 0..count-1 is at most nfe.

    A function of the model and the budget alone, so that samples keep depending on their seeds only.

    Raises:
        SampleError: the coarsest tolerance costs more already.
    """
    labels = torch.arange(count) % model.num_classes if labelled else None
    latents = seeded_noise(range(count), model.shape).to(model.device, dtype)
    begin = float(model.path.prior_std(sigmas[0])) * latents

    def cost(exponent: float) -> float:
        tried = steering._replace(tol=10**exponent, max_nfe=3 * nfe + 100)  # more is too much anyway
        found = Job(model, method, sigmas, tried, labels, count, tuple(range(count)), dtype).carry(begin)
        return float(found.nfe.double().mean()) if found.converged.all() else math.inf

    least = math.log10(LEAST_TOL[dtype])
    high, low = 0.0, -1.0  # log10 of a tolerance that is cheap enough, and of one to try
    if (spent := cost(high)) > nfe:
        remedy = f"; use nfe >= {math.ceil(spent)}" if spent < math.inf else ", and more; give tol instead"
        raise SampleError(
            f"nfe={nfe} is too small: even at tol=1 a sample costs {min(spent, 3 * nfe + 100):.1f}{remedy}"
        )
    while low >= least and cost(low) <= nfe:
        high, low = low, low - 1
    for _ in range(3):
        middle = max(least, (low + high) / 2)
        low, high = (low, middle) if cost(middle) <= nfe else (middle, high)
    return steering._replace(tol=10**high)


def seeded_noise(seeds: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """(B, *shape) float32 standard normals, each row a function of its own seed only."""
    generators = [torch.Generator().manual_seed(seed) for seed in check_seeds(seeds)]
    return torch.stack([torch.randn(shape, generator=g, dtype=torch.float32, device="cpu") for g in generators])


def watch_of(callback: Callable[[Progress], None] | None, rows: range, steps: int | None) -> Watch | None:
    """What tells the callback of the steps of some samples."""
    if callback is None:
        return None
    return lambda step, share, sigma, xbar: callback(Progress(rows, step, steps, share, sigma, xbar))
