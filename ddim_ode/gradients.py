"""Gradients of a loss of the samples, with respect to where they start and to the network's parameters.

    direct      differentiates what the solver has computed, and keeps the graph of every evaluation for it
    adjoint     solves the adjoint ODE from the end to the start                         (Chen et al. 2018)
    reversible  rebuilds the states from the last pair, and differentiates one of the solver's steps after the other

The memory of the last two does not grow with the number of steps. `adjoint` differentiates the ODE, so that it is right
up to the solver's error; its tolerance is a share of the gradient at the end. The others differentiate the solver: an
adaptive one's for the steps that it has taken, and on a lattice as if nothing were rounded.

A backward pass costs about as many evaluations as there were steps, each with its graph; with `direct` none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.ode.adjoint import AdjointFlow, GradientError, Products
from ddim_ode.planning.plan import Plan
from ddim_ode.solvers import DivergedError, Method, Outcome, Watch
from ddim_ode.solvers.adaptive import worst
from ddim_ode.support.checks import shown

DRIFT = 1e-3  # by which the way back may miss the start: RMS, in units of the start or of data


@dataclass(frozen=True)
class Mode:
    """A value of `differentiable`: which methods it takes, what those are, and one of them."""

    takes: Callable[[Method], bool]
    what: str
    example: str


MODES: Mapping[str, Mode] = {
    "direct": Mode(lambda method: method.recorded, "methods whose operations torch records", "dopri5"),
    "adjoint": Mode(
        lambda method: method.slopes_only and method.recorded, "methods that ask for slopes alone", "dopri5"
    ),
    "reversible": Mode(lambda method: method.rebuilds, "methods that are their own inverse", "leapfrog"),
}


def runner(plan: Plan, name: str, differentiable: str | None) -> Callable[[Tensor, slice, Watch | None], Outcome]:
    """What runs a batch as `Plan.run` does, with a graph if asked for; `name` is what errors call the method.

    Raises:
        GradientError: an unknown value, a method that it does not take, or gradients that are switched off.
    """
    if differentiable is None:
        return lambda xbar, rows, watch: plan.run(plan.flow(rows), xbar.detach(), watch)
    check_differentiable(plan.method, name, differentiable)

    def run(xbar: Tensor, rows: slice, watch: Watch | None) -> Outcome:
        if differentiable == "direct":
            seen: Watch | None = watch and (lambda n, share, sigma, x: watch(n, share, sigma, x.detach()))
            outcome = plan.run(plan.flow(rows, differentiable=True), xbar, seen)
        else:
            outcome = WithoutGraph(plan, rows, watch, differentiable == "reversible").run(xbar)
        if not outcome.x.requires_grad:
            raise GradientError("nothing here requires a gradient; give noise, start or a network that does")
        return outcome

    return run


def check_differentiable(method: Method, name: str, differentiable: str | None) -> None:
    """Raise as `runner` does for a value of `differentiable` that there is not, or not for the method."""
    if differentiable is None:
        return
    if not isinstance(differentiable, str) or differentiable not in MODES:
        raise GradientError(
            f"differentiable={shown(differentiable)} is unknown; choose one of {', '.join(MODES)}, or None"
        )
    mode = MODES[differentiable]
    if not method.deterministic:
        raise GradientError(
            f"differentiable={differentiable!r} takes deterministic methods; leave eta out, or use 'ddim'"
        )
    if not mode.takes(method):
        others = [f"differentiable={other!r}" for other, able in MODES.items() if able.takes(method)]
        remedy = " or ".join([*others, f"method={mode.example!r}"])
        raise GradientError(f"differentiable={differentiable!r} takes {mode.what}, and {name} is none; use {remedy}")
    if not torch.is_grad_enabled():
        raise GradientError(f"differentiable={differentiable!r} records nothing under torch.no_grad; sample outside it")


def parameters(model: object) -> tuple[Tensor, ...]:
    """The parameters of the network inside a model that require a gradient; none of a plain function."""
    while model is not None and not isinstance(model, nn.Module):
        model = getattr(model, "net", getattr(model, "model", None))
    return () if model is None else tuple(p for p in model.parameters() if p.requires_grad)


class WithoutGraph:
    """One batch: to the last sigma above 0 without a graph, and from there back for the gradient."""

    def __init__(self, plan: Plan, rows: slice, watch: Watch | None, reversible: bool):
        self.plan, self.watch, self.reversible = plan, watch, reversible
        self.ode, self.parameters = plan.flow(rows), parameters(plan.model)
        self.above = plan.above_zero()
        self.outcome: Outcome | None = None

    def run(self, xbar: Tensor) -> Outcome:
        """Carry a batch as `Plan.run` does, and record the denoising at the end, if there is one."""
        x = Rebuilt.apply(self, xbar, *self.parameters)
        self.ode.differentiable = True
        outcome, self.outcome = self.outcome, None  # x hangs on this object, and must not be held by it
        assert outcome is not None
        steps = int(outcome.steps.max())
        if len(self.above.sigmas) < len(self.plan.sigmas):
            try:
                x = self.ode.predict(x, self.above.sigmas[-1]).data
            except NonFiniteError as error:
                error.step = steps
                raise
            if self.watch and self.plan.steps is not None:
                self.watch(steps, 1.0, 0.0, x.detach())
        return outcome._replace(x=x.to(xbar.dtype), nfe=torch.full_like(outcome.nfe, int(self.ode.nfe)))

    def forward(self, xbar: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """xbar at the last sigma above 0, and the states from which there is a way back."""
        told, steps = self.watch, self.plan.steps
        # On a grid the share of the way counts all steps, the denoising at the end included.
        watch = told and (lambda n, share, sigma, x: told(n, n / steps if steps else share, sigma, x))
        found = self.above.run(self.ode, xbar, watch)
        if not found.converged.all():
            raise GradientError(f"max_nfe={self.plan.max_nfe} ended the run; for its gradient give more")
        more = len(self.plan.sigmas) - len(self.above.sigmas)
        self.outcome = found._replace(steps=found.steps + more, sigmas=pad(found.sigmas, (0, more)))
        return found.x, found.kept if self.reversible else (found.x,)

    def backward(self, start: Tensor, kept: Sequence[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
        """The loss's gradients in xbar at the first sigma and in the parameters, from that at the last."""
        (first, last), ode = self.above.sigmas[[0, -1]], self.ode
        of_end = ode.leave(grad, last)  # y = a xbar is its own transpose
        if not self.reversible:
            of_start, *rest = self._adjoint(ode.enter(kept[0], last), of_end)
            return ode.enter(of_start, first), *rest
        products = Products(self.parameters)
        u = ode.path.u(self.above.sigmas)
        found, of_start = self.plan.method.solver.pullback(ode, u, tuple(kept), of_end, products)
        y = ode.enter(start, first).to(found)
        if not (missed := float(worst(found - y)) / max(float(worst(y)), 1.0)) <= DRIFT:
            raise DivergedError(
                f"the way back missed the start by {missed:.2g} of it, so that the gradient would be wrong"
                "; use leapfrog, dtype=torch.float64 or fewer steps, and a network that repeats itself"
            )
        return ode.enter(of_start, first), *products.total

    def _adjoint(self, y: Tensor, of_y: Tensor) -> tuple[Tensor, ...]:
        """The loss's gradients in the first state and in the parameters, from the last state and that in it."""
        unit = float(worst(of_y)) or 1.0  # whatever the loss is measured in, the tolerance is a share of it
        flow = AdjointFlow(self.ode, self.parameters, y)
        state = flow.join(y, of_y / unit, *(torch.zeros_like(p) for p in self.parameters))
        return tuple(unit * x for x in flow.split(self.above.backwards().run(flow, state).x)[1:])


class Rebuilt(torch.autograd.Function):
    """xbar at the last sigma above 0, as a function of that at the first and of the parameters."""

    @staticmethod
    def forward(ctx: Any, batch: WithoutGraph, xbar: Tensor, *parameters: Tensor) -> Tensor:
        end, kept = batch.forward(xbar)
        ctx.batch = batch
        ctx.save_for_backward(xbar, *kept, *parameters)  # the parameters, so that torch sees if they have changed
        return end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        start, *rest = ctx.saved_tensors
        return None, *ctx.batch.backward(start, rest[: len(rest) - len(ctx.batch.parameters)], grad)
