"""What a solver is, what a run returns, and the one loop that drives them all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ddim_ode.denoiser import NonFiniteError
from ddim_ode.errors import DDIMError
from ddim_ode.ode import ProbabilityFlow
from ddim_ode.paths import Path


class DivergedError(DDIMError):
    """The state is not finite, although every prediction was."""


class Step(NamedTuple):
    """The state after a step, what the solver wants back at the next one, and its error estimate if it has one."""

    y: Tensor
    state: Any
    error: Tensor | None = None


class Solver(Protocol):
    """Frozen: hyper-parameters only. History travels in `state`."""

    @property
    def to_zero(self) -> bool:
        """Whether `step` can take the last interval to sigma = 0; otherwise the driver returns xhat0 there."""
        ...

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> Any:
        """The state before the first step from y; sigmas (N + 1,) are the whole grid, a last 0 included."""
        ...

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: Any) -> Step:
        """From y at u0 to y at u1; u1 may lie on either side of u0."""
        ...


@dataclass(frozen=True)
class Method:
    """A row of `METHODS`: a solver, the path it integrates on and the grid it uses unless told otherwise."""

    solver: Solver
    path: Path
    grid: str
    order: int
    evaluations: int  # a step
    summary: str
    deterministic: bool = True
    adaptive: bool = False
    invertible: bool = False


@dataclass(frozen=True)
class Solution:
    """Samples and what they cost.

    x: (B, *shape) in the state's dtype, data range [-1, 1], not clipped; xbar at the last sigma.
    nfe: (B,) int64, network passes spent on each sample. sigmas: (N + 1,) float64, the grid.
    steps, rejected: (B,) int64, accepted and rejected steps of each sample.
    """

    x: Tensor
    nfe: Tensor
    steps: Tensor
    rejected: Tensor
    sigmas: Tensor


#: called after every step with (steps done, sigma reached, xbar of the batch)
Watch = Callable[[int, float, Tensor], None]


def nodes_of(solver: Solver, sigmas: Tensor) -> Tensor:
    """The sigmas between which the solver steps: with a last 0 if it steps there and has a second slope by then."""
    return sigmas if solver.to_zero and len(sigmas) > 2 else sigmas[sigmas > 0]


def integrate(ode: ProbabilityFlow, solver: Solver, sigmas: Tensor, xbar: Tensor, watch: Watch | None = None) -> Tensor:
    """Carry xbar (B, *shape) from sigmas[0] to sigmas[-1], downwards or upwards.

    A last sigma of 0 is reached by one evaluation: the solver's own step, or the predicted image, as DDIM does.

    Raises:
        NonFiniteError: the network returned NaN or infinity, with the step.
        DivergedError: the state did.
    """
    nodes = nodes_of(solver, sigmas)
    u = ode.path.u(nodes)
    y = ode.enter(xbar, nodes[0])
    state = solver.init(ode, sigmas, y)
    n = 0
    try:
        for n in range(len(nodes) - 1):
            y, state, _ = solver.step(ode, u[n], u[n + 1], y, state)
            if watch:
                watch(n + 1, float(nodes[n + 1]), ode.leave(y, nodes[n + 1]))
        xbar = ode.leave(y, nodes[-1])
        if len(nodes) < len(sigmas):
            n = len(nodes) - 1
            xbar = ode.predict(xbar, nodes[-1]).data
            if watch:
                watch(n + 1, 0.0, xbar)
    except NonFiniteError as error:
        error.step = n + 1
        raise
    if not torch.isfinite(xbar).all():
        raise DivergedError("the solver diverged: the state is not finite; use more steps or another method")
    return xbar
