"""What every run has in common: a model, a method and where to go, for many samples in batches."""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddim_ode.models.conditions import Conditions, Told, tensors_of
from ddim_ode.models.denoiser import Model, NonFiniteError
from ddim_ode.models.guidance.classifier_free import check_guides
from ddim_ode.ode.brownian import Brownian
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.planning.budget import grid_for
from ddim_ode.planning.guided import with_guidance
from ddim_ode.planning.inputs import FEWER, Labels, SampleError, check_told, seeded_noise
from ddim_ode.planning.options import AUTO, DEFAULT_BATCH, SolveOptions
from ddim_ode.planning.origins import check_origin
from ddim_ode.planning.profile import Profile
from ddim_ode.planning.tolerance import ends_for, tolerance_for
from ddim_ode.solvers import Control, Method, MethodError, Outcome, Solution, Step, Watch, follow
from ddim_ode.support.resources import allocating
from ddim_ode.support.waiting import at_once, without_waiting

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


Callback = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """Many samples to carry in batches: by which model, guided or not, and which method, from where to where."""

    model: Model
    method: Method
    sigmas: Tensor  # (N + 1,) float64, or with an adaptive method its ends
    labels: Told  # of B samples
    batch_size: int
    seeds: tuple[int, ...]  # (B,), of the noise on the way
    dtype: torch.dtype  # of the state

    control: Control | None = None  # of an adaptive method

    @property
    def steps(self) -> int | None:
        """How many there will be; None where nobody knows."""
        return None if self.control else len(self.sigmas) - 1

    @property
    def tol(self) -> float | None:
        """The tolerance, of an adaptive method."""
        return self.control.tol if self.control else None

    @property
    def max_nfe(self) -> int | None:
        """The evaluations after which an adaptive method gives up on a sample."""
        return self.control.max_nfe if self.control else None

    @abstractmethod
    def run(self, ode: ProbabilityFlow, xbar: Tensor, watch: Watch | None = None) -> Outcome:
        """One batch xbar (B, *shape), or whatever state the ode has, from the first sigma to the last.

        The outcome's x is in the precision that the solver computes in.
        """

    def resume(self, ode: ProbabilityFlow, kept: Sequence[Tensor], watch: Watch | None = None) -> Outcome:
        """Carry a batch back from what the run that led to the first sigma has kept."""
        return self.run(ode, kept[0], watch)

    @abstractmethod
    def solution(self, parts: Sequence[Outcome]) -> Solution:
        """The batches in one."""

    def flow(self, rows: slice = slice(None), differentiable: bool = False) -> ProbabilityFlow:
        """The ODE of some of the samples, between the first sigma and the last above 0."""
        ends = sorted((float(self.sigmas[0]), float(self.sigmas[self.sigmas > 0][-1])))
        if not self.method.deterministic:  # they step below the next sigma, and churn above it
            ends = [0.0, max(ends[1], self.model.sigma_max)]
        labels = None if self.labels is None else self.labels[rows].to(self.model.device)
        ode = ProbabilityFlow(self.model, self.method.path, (ends[0], ends[1]), labels, differentiable)
        if not self.method.deterministic:
            ode.brownian = Brownian(self.seeds[rows], self.model.shape, self.model.device, self.dtype)
        return ode

    def each(self, total: int, go: Callable[[slice, Watch | None], Done], callback: Callback | None) -> list[Done]:
        """Call `go` with the rows of every batch in turn, and return what it returned.

        Raises NonFiniteError with the sample's index in the whole run.
        """
        done = []
        for first in range(0, total, self.batch_size):
            rows = range(first, min(first + self.batch_size, total))
            try:
                done.append(go(slice(rows.start, rows.stop), watch_of(callback, rows, self.steps)))
            except NonFiniteError as error:
                error.sample += first
                raise
        return done

    def above_zero(self) -> "Plan":
        """The plan without its denoising at the end, if it has one."""
        return replace(self, sigmas=self.sigmas[self.sigmas > 0])

    def backwards(self) -> "Plan":
        """The same way in the other direction, whatever it costs."""
        return replace(self, sigmas=self.sigmas.flip(0))


@dataclass(frozen=True, kw_only=True)
class GridPlan(Plan):
    """A plan whose solver steps along a grid."""

    def run(self, ode: ProbabilityFlow, xbar: Tensor, watch: Watch | None = None) -> Outcome:
        y = ode.enter(xbar, self.sigmas[0])
        return self._follow(ode, Step(y, self.method.solver.init(ode, self.sigmas, y)), watch)

    def resume(self, ode: ProbabilityFlow, kept: Sequence[Tensor], watch: Watch | None = None) -> Outcome:
        if not self.method.invertible:
            return super().resume(ode, kept, watch)
        return self._follow(ode, self.method.solver.resume(ode, self.sigmas, tuple(kept)), watch)

    def _follow(self, ode: ProbabilityFlow, begin: Step, watch: Watch | None) -> Outcome:
        x, state = _carry_out(ode, lambda seen: follow(ode, self.method.solver, self.sigmas, begin, seen), watch)
        count = len(x)
        return Outcome(
            x=x,
            nfe=torch.full((count,), int(ode.nfe)),
            steps=torch.full((count,), len(self.sigmas) - 1),
            rejected=torch.zeros(count, dtype=torch.int64),
            sigmas=self.sigmas.expand(count, -1),
            converged=torch.ones(count, dtype=torch.bool),
            kept=self.method.solver.keep(state) if self.method.invertible else (x,),
        )

    def solution(self, parts: Sequence[Outcome]) -> Solution:
        return _joined(parts, self.sigmas)


@dataclass(frozen=True, kw_only=True)
class AdaptivePlan(Plan):
    """A plan whose solver chooses its steps."""

    control: Control

    def run(self, ode: ProbabilityFlow, xbar: Tensor, watch: Watch | None = None) -> Outcome:
        solve, ends = self.method.solver.solve, self.sigmas
        found: Outcome = _carry_out(ode, lambda seen: solve(ode, ends, xbar, self.control, seen), watch)
        return found._replace(kept=(found.x,))

    def solution(self, parts: Sequence[Outcome]) -> Solution:
        widest = max(part.sigmas.shape[1] for part in parts)
        padded = [pad(part.sigmas, (0, widest - part.sigmas.shape[1]), value=math.nan) for part in parts]
        return _joined(parts, torch.cat(padded), self.tol)

    def backwards(self) -> "Plan":
        return replace(self, sigmas=self.sigmas.flip(0), control=self.control._replace(max_nfe=sys.maxsize))

    def with_budget(self, nfe: int, labelled: bool, count: int, begin: Tensor | None = None) -> "AdaptivePlan":
        """This plan with the tolerance whose mean NFE over seeds 0..count-1 is at most nfe.

        A function of the model and the budget alone, so that samples keep depending on their seeds only.

        begin: (count, *shape), states at the first sigma (default: the noise of those seeds).

        Raises:
            SampleError: the coarsest tolerance costs more already.
        """
        labels = torch.arange(count) % self.model.num_classes if labelled else None
        if begin is None:
            latents = seeded_noise(range(count), self.model.shape).to(self.model.device, self.dtype)
            begin = float(self.model.path.prior_std(self.sigmas[0])) * latents
        few = replace(self, labels=labels, batch_size=count, seeds=tuple(range(count)))

        def cost(tol: float, most: int) -> float:
            tried = replace(few, control=self.control._replace(tol=tol, max_nfe=most))
            found = tried.run(tried.flow(), begin)
            return float(found.nfe.double().mean()) if found.converged.all() else math.inf

        return replace(self, control=self.control._replace(tol=tolerance_for(nfe, self.dtype, cost)))


def prepare(
    model: Model,
    options: SolveOptions,
    count: int,
    *,
    labels: Labels | Conditions = None,
    upward: bool = False,
    seeds: Sequence[int] | None = None,
) -> GridPlan | AdaptivePlan:
    """The plan for `count` samples; upward, from the image to the latent.

    Args:
        labels: (count,) or one int for all, in 0..num_classes-1; None is the null class. Or `Conditions`, with labels.
        seeds: (count,) of the noise on the way (default: 0..count-1).

    Raises:
        SampleError, GridError, GuidanceError: options or labels that this model cannot have.
        MethodError: a method that was tuned to another model, or to other guidance.
    """
    model, row, told = with_guidance(model, options), options.row, check_told(model, labels, count)
    if options.guidance != 1:
        check_guides(model.num_classes, told, options.guidance)
    if tensors_of(told):
        check_measured(options)
    if row.own_grids or (row.origin and options.grid is None):
        check_origin(model, row)
    if row.own_grids and upward:
        raise MethodError(f"{options.name} leads from noise to the image alone; use another method, such as 'adams3'")
    sigmas = ends_for(model, options) if row.adaptive else grid_for(model, options, upward, told is not None)
    if upward and sigmas[-1] == 0:
        raise SampleError("the grid ends at sigma=0, where no data lie; end at the model's sigma_min")
    common: dict[str, Any] = {
        "model": model,
        "method": row,
        "sigmas": sigmas.flip(0) if upward else sigmas,
        "labels": told,
        "batch_size": DEFAULT_BATCH if options.batch_size is None else options.batch_size,
        "seeds": tuple(range(count) if seeds is None else seeds),
        "dtype": options.dtype,
    }
    if not row.adaptive:
        return GridPlan(**common)
    plan = AdaptivePlan(**common, control=options.control)
    if options.nfe is None:
        if (least := model.evaluations(float(sigmas[0]))) > plan.control.max_nfe:
            raise SampleError(
                f"max_nfe={options.max_nfe} is too small: one step costs {least} evaluations; use max_nfe >= {least}"
            )
        return plan
    if upward:
        raise SampleError(
            f"nfe={options.nfe}: {options.name} finds the tolerance of a budget for sampling only; give tol"
        )
    few = CALIBRATION if row.per_sample else min(plan.batch_size, count)  # what a batch shares depends on its size
    return plan.with_budget(options.nfe, told is not None, few)


def check_measured(options: SolveOptions) -> None:
    """Raise SampleError where something is measured on the model first, on samples of which nobody has conditions."""
    if options.row.adaptive and options.nfe is not None:
        raise SampleError(
            f"nfe={options.nfe}: {options.name} finds the tolerance of a budget on samples of its own, for which there"
            " are no conditions; give tol"
        )
    if options.grid == AUTO or isinstance(options.grid, Profile):
        raise SampleError(
            "grid='auto' is made on samples of its own, for which there are no conditions; give a named grid, or sigmas"
        )


def watch_of(callback: Callback | None, rows: range, steps: int | None) -> Watch | None:
    """What tells the callback of the steps of some samples."""
    if callback is None:
        return None
    return lambda step, share, sigma, xbar: callback(Progress(rows, step, steps, share, sigma, xbar))


def _carry_out(ode: ProbabilityFlow, go: Callable[[Watch | None], Done], watch: Watch | None) -> Done:
    """What `go` returns, which asks the device as little as it can; done again it is counted anew, and not watched."""
    spent = ode.nfe

    def again() -> Done:
        ode.nfe = spent
        return go(None)

    return without_waiting(lambda: go(watch and at_once()(watch)), again)


def _joined(parts: Sequence[Outcome], sigmas: Tensor, tol: float | None = None) -> Solution:
    with allocating(sum(part.x.nbytes for part in parts), "x of all batches", FEWER, SampleError):
        x = torch.cat([part.x for part in parts])
    return Solution(
        x=x,
        nfe=torch.cat([part.nfe for part in parts]),
        steps=torch.cat([part.steps for part in parts]),
        rejected=torch.cat([part.rejected for part in parts]),
        sigmas=sigmas,
        converged=torch.cat([part.converged for part in parts]),
        tol=tol,
    )
