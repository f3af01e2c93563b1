"""Gradients of a loss of the samples, with respect to where they start and to the network's parameters.

    direct      differentiates what the solver has computed, and keeps the graph of every evaluation for it
    adjoint     solves the adjoint ODE from the end to the start                         (Chen et al. 2018)
    reversible  rebuilds the states from the last pair, and differentiates one of the solver's steps after the other

The memory of the last two does not grow with the number of steps. `adjoint` differentiates the ODE, so that it is right
up to the solver's error; its tolerance is a share of the gradient at the end. The others differentiate the solver: an
adaptive one's for the steps that it has taken, and on a lattice as if nothing were rounded.

A backward pass costs about as many evaluations as there were steps, each with its graph; with `direct` none.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ddim_ode.adjoints import AdjointFlow, GradientError, Products, heun, two_step
from ddim_ode.denoiser import NonFiniteError
from ddim_ode.solvers import Adaptive, DivergedError, Method, Outcome, Reversible, Step, Watch, follow, integrate
from ddim_ode.solvers.adaptive import TorchDiffEq, worst
from ddim_ode.solvers.reversible import ReversibleHeun, TwoStep
from ddim_ode.solvers.runge_kutta import RungeKutta

if TYPE_CHECKING:
    from ddim_ode.jobs import Job

DRIFT = 1e-3  # by which the way back may miss the start: RMS, in units of the start or of data


def is_recorded(solver: object) -> bool:
    on_lattice = isinstance(solver, Reversible) and solver.exact
    in_numpy = isinstance(solver, TorchDiffEq) and bool(solver.scipy)
    return not (on_lattice or in_numpy)


def is_runge_kutta(solver: object) -> bool:
    return isinstance(solver, RungeKutta) or (isinstance(solver, TorchDiffEq) and not solver.scipy)


def is_own_inverse(solver: object) -> bool:
    return isinstance(solver, TwoStep | ReversibleHeun)


#: `differentiable` -> (whether it takes a solver, what it takes, a method that is one)
MODES: Mapping[str, tuple[Callable[[object], bool], str, str]] = {
    "direct": (is_recorded, "methods whose operations torch records", "dopri5"),
    "adjoint": (is_runge_kutta, "Runge-Kutta methods of torchdiffeq", "dopri5"),
    "reversible": (is_own_inverse, "methods that are their own inverse", "leapfrog"),
}


def carrier(
    job: "Job", method: str | Method, differentiable: str | None
) -> Callable[[Tensor, slice, Watch | None], Outcome]:
    """What carries a batch as `Job.carry` does, with a graph if asked for.

    Raises:
        GradientError: an unknown value, a method that it does not take, or gradients that are switched off.
    """
    if differentiable is None:
        return lambda xbar, rows, watch: job.carry(xbar.detach(), rows, watch)
    if differentiable not in MODES:
        raise GradientError(f"differentiable={differentiable!r} is unknown; choose one of {', '.join(MODES)}, or None")
    able, what, example = MODES[differentiable]
    if not job.method.deterministic:
        raise GradientError(
            f"differentiable={differentiable!r} takes deterministic methods; leave eta out, or use 'ddim'"
        )
    if not able(job.method.solver):
        others = [f"differentiable={mode!r}" for mode, (can, *_) in MODES.items() if can(job.method.solver)]
        name = method if isinstance(method, str) else "this one"
        remedy = " or ".join([*others, f"method={example!r}"])
        raise GradientError(f"differentiable={differentiable!r} takes {what}, and {name} is none; use {remedy}")
    if not torch.is_grad_enabled():
        raise GradientError(f"differentiable={differentiable!r} records nothing under torch.no_grad; sample outside it")

    def carry(xbar: Tensor, rows: slice, watch: Watch | None) -> Outcome:
        if differentiable == "direct":
            seen: Watch | None = watch and (lambda n, share, sigma, x: watch(n, share, sigma, x.detach()))
            outcome = job.carry(xbar, rows, seen, keep=True)
        else:
            outcome = Trip(job, rows, watch).carry(xbar)
        if not outcome.x.requires_grad:
            raise GradientError("nothing here requires a gradient; give noise, start or a network that does")
        return outcome

    return carry


def parameters(model: object) -> tuple[Tensor, ...]:
    """Those of the network inside a model that require a gradient; of a plain function none."""
    while model is not None and not isinstance(model, nn.Module):
        model = getattr(model, "net", getattr(model, "model", None))
    return () if model is None else tuple(p for p in model.parameters() if p.requires_grad)


class Trip:
    """One batch: to the last sigma above 0 without a graph, and from there back for the gradient."""

    def __init__(self, job: "Job", rows: slice, watch: Watch | None):
        self.job, self.watch, self.solver = job, watch, job.method.solver
        self.ode, self.parameters = job.flow(rows), parameters(job.model)
        self.sigmas = job.sigmas[job.sigmas > 0]
        self.outcome: Outcome | None = None

    def carry(self, xbar: Tensor) -> Outcome:
        x = Detour.apply(self, xbar, *self.parameters)
        self.ode.differentiable = True
        outcome, self.outcome = self.outcome, None  # x hangs on this trip, and must not be held by it
        assert outcome is not None
        steps = int(outcome.steps.max())
        if len(self.sigmas) < len(self.job.sigmas):
            try:
                x = self.ode.predict(x, self.sigmas[-1]).data
            except NonFiniteError as error:
                error.step = steps
                raise
            if self.watch and not isinstance(self.solver, Adaptive):
                self.watch(steps, 1.0, 0.0, x.detach())
        return outcome._replace(x=x.to(xbar.dtype), nfe=torch.full_like(outcome.nfe, int(self.ode.nfe)))

    def go(self, xbar: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """xbar at the last sigma above 0, and the states from which there is a way back."""
        ode, solver, watch, steps = self.ode, self.solver, self.watch, len(self.job.sigmas) - 1
        if isinstance(solver, Adaptive):
            assert self.job.steering is not None
            found = solver.solve(ode, self.sigmas, xbar, self.job.steering, watch)
            if not found.converged.all():
                raise GradientError(f"max_nfe={self.job.steering.max_nfe} ended the run; for its gradient give more")
            more = len(self.job.sigmas) - len(self.sigmas)
            self.outcome = found._replace(steps=found.steps + more, sigmas=pad(found.sigmas, (0, more)))
            return found.x, (found.x,)
        seen: Watch | None = watch and (lambda n, share, sigma, x: watch(n, n / steps, sigma, x))
        y = ode.enter(xbar, self.sigmas[0])
        end, state = follow(ode, solver, self.sigmas, Step(y, solver.init(ode, self.sigmas, y)), seen)
        self.outcome = self.job.arrived(ode, end)
        return end, solver.keep(state) if isinstance(solver, Reversible) else (end,)

    def back(self, start: Tensor, kept: Sequence[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
        """The loss's gradients in xbar at the first sigma and in the parameters, from that at the last."""
        (first, last), solver, ode = self.sigmas[[0, -1]], self.solver, self.ode
        of_end = ode.leave(grad, last)  # y = a xbar is its own transpose
        if not isinstance(solver, Reversible):
            of_start, *rest = self.adjoint(ode.enter(kept[0], last), of_end)
            return ode.enter(of_start, first), *rest
        steps_back, products = two_step if isinstance(solver, TwoStep) else heun, Products(self.parameters)
        found, of_start = steps_back(solver, ode, ode.path.u(self.sigmas), kept, of_end, products)
        y = ode.enter(start, first).to(found)
        if not (missed := float(worst(found - y)) / max(float(worst(y)), 1.0)) <= DRIFT:
            raise DivergedError(
                f"the way back missed the start by {missed:.2g} of it, so that the gradient would be wrong"
                "; use leapfrog, dtype=torch.float64 or fewer steps, and a network that repeats itself"
            )
        return ode.enter(of_start, first), *products.total

    def adjoint(self, y: Tensor, of_y: Tensor) -> tuple[Tensor, ...]:
        """The loss's gradients in the first state and in the parameters, from the last state and that in it."""
        unit = float(worst(of_y)) or 1.0  # whatever the loss is measured in, the tolerance is a share of it
        flow, sigmas, solver = AdjointFlow(self.ode, self.parameters, y), self.sigmas.flip(0), self.solver
        state = flow.join(y, of_y / unit, *(torch.zeros_like(p) for p in self.parameters))
        if isinstance(solver, Adaptive):
            assert self.job.steering is not None
            state = solver.solve(flow, sigmas, state, self.job.steering._replace(max_nfe=sys.maxsize)).x
        else:
            state = integrate(flow, solver, sigmas, state)
        return tuple(unit * x for x in flow.split(state)[1:])


class Detour(torch.autograd.Function):
    """xbar at the last sigma above 0, as a function of that at the first and of the parameters."""

    @staticmethod
    def forward(ctx: Any, trip: Trip, xbar: Tensor, *parameters: Tensor) -> Tensor:
        end, kept = trip.go(xbar)
        ctx.trip = trip
        ctx.save_for_backward(xbar, *kept, *parameters)  # the parameters, so that torch sees if they have changed
        return end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        start, *rest = ctx.saved_tensors
        return None, *ctx.trip.back(start, rest[: len(rest) - len(ctx.trip.parameters)], grad)
