"""What a solver is, and the one loop that drives them all."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise, starmap
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import Path
from ddim_ode.solvers.origin import Origin
from ddim_ode.support.waiting import finite


class DivergedError(DDIMError):
    """The state is not finite, although every prediction was."""


class Step(NamedTuple):
    """The state after a step, and what the solver wants back at the next one."""

    y: Tensor
    state: Any


class Solver(Protocol):
    """Frozen: hyper-parameters only. History travels in `state`.

    What else a solver can do is an attribute that it may have, and `Method` reads:

        adaptive      it chooses its steps, by `solve` of `Adaptive` instead of `init` and `step`
        per_sample    False: a batch shares its steps, so that a sample depends on its companions
        stochastic    it draws noise from `ode.brownian`
        one_step      each of its steps stands alone, so that noise may be added in between
        reversible    its steps can be undone, by `keep` and `resume` of `Reversible`
        exact         they are undone to the last bit; it is given float64 then
        pullback      a method that differentiates its steps one by one on the way back, see `Reversible`
        recorded      False: torch does not record its operations, so that no graph leads through them, as of exact ones
        slopes_only   it asks `ode` for slopes alone, so that any ODE will do: with a density, or an adjoint
        tells_steps   False: it chooses its steps and does not say which
        own_grids     it steps on the grids of its `Method` alone, and begins with noise, not with a state
    """

    @property
    def to_zero(self) -> bool:
        """Whether `step` can take the last interval to sigma = 0; otherwise the driver returns xhat0 there."""
        ...

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> Any:
        """The state before the first step from y; sigmas (N + 1,) are the whole grid, a last 0 included."""
        ...

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: Any) -> Step:
        """Step from y at u0 to u1, which may lie on either side of u0."""
        ...


class Control(NamedTuple):
    """What an adaptive solver is told: the error to accept and the evaluations a sample may cost at most."""

    tol: float  # RMS over a sample, in data units (images in [-1, 1])
    max_nfe: int
    first_step: float | None = None  # in the time of the method's path


class Outcome(NamedTuple):
    """A batch that a solver has carried from one sigma to another; counts are (B,) int64."""

    x: Tensor  # (B, *shape) xbar at the last sigma, or the predicted image
    nfe: Tensor
    steps: Tensor
    rejected: Tensor
    sigmas: Tensor  # (B, M) float64, where each sample has been; NaN after its last
    converged: Tensor  # (B,) bool, False where max_nfe, or the smallest step, ended it: the rest is one DDIM step
    kept: tuple[Tensor, ...] = ()  # from which there is a way back: x, or of a reversible solver its pair of states

    def bare(self, dtype: torch.dtype) -> "Outcome":
        """The outcome without what a way back needs, its x in the precision of the state."""
        return self._replace(x=self.x.to(dtype), kept=())


class Adaptive(ABC):
    """A solver that chooses its steps, and therefore has a loop of its own."""

    adaptive = True

    @abstractmethod
    def solve(
        self, ode: ProbabilityFlow, sigmas: Tensor, xbar: Tensor, control: Control, watch: "Watch | None" = None
    ) -> Outcome:
        """Carry xbar (B, *shape) from sigmas[0] to sigmas[1], down or up, and if a third, 0, follows, to the image.

        Raises:
            NonFiniteError: the network returned NaN or infinity, with the step.
            DivergedError: the solver cannot go on.
        """


class Stochastic:
    """A solver that draws noise from `ode.brownian`, on the way down."""

    stochastic = True
    to_zero = False


class Reversible(ABC):
    """A solver whose steps can be undone, given the pair of states that it ended with."""

    reversible = True
    to_zero = False

    @property
    def exact(self) -> bool:
        """Whether they are undone to the last bit; give it float64 then."""
        return False

    @abstractmethod
    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> Any: ...

    @abstractmethod
    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: Any) -> Step: ...

    @abstractmethod
    def keep(self, state: Any) -> tuple[Tensor, Tensor]:
        """The pair, each (B, *shape), the first of them y: int64 in units of `lattice.UNIT`, 2^-52, of an exact solver,
        else in the dtype of y.
        """

    @abstractmethod
    def resume(self, ode: ProbabilityFlow, sigmas: Tensor, kept: tuple[Tensor, Tensor]) -> Step:
        """y and the state from which `step` goes back; sigmas are the grid that led there, reversed."""

    #: (ode, u, kept, of_end, products) -> the first state and the loss's gradient in it, from the pair that the solver
    #: ended with on the times u (N + 1,) and the gradient in the last state. It rebuilds the states one by one and
    #: takes a vector-Jacobian product of each evaluation by `products` (`ode.adjoint.Products`). None: it cannot.
    pullback: Callable[..., tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True)
class Method:
    """A row of `METHODS`: a solver, the path it integrates on and the grid it uses unless told otherwise.

    evaluations: predictions that a step costs. summary: a line for people. grids: explicit ones to choose from by what
    they cost, in place of a named one. origin: of a tuned method, the model that it holds for.
    """

    solver: Any  # a `Solver`, or an `Adaptive`
    path: Path
    grid: str
    order: int
    evaluations: int
    summary: str
    _: KW_ONLY
    grids: tuple[tuple[float, ...], ...] = ()
    origin: Origin | None = None

    def _can(self, what: str, otherwise: bool = False) -> bool:
        """An attribute that a solver may have."""
        return bool(getattr(self.solver, what, otherwise))

    @property
    def kind(self) -> str:
        """What is out of the ordinary about it, in words for people."""
        words = {
            "adaptive": self.adaptive,
            "coupled": not self.per_sample,
            "stochastic": not self.deterministic,
            "invertible": self.invertible,
            "tuned": self.origin is not None,
        }
        return ", ".join(word for word, holds in words.items() if holds)

    @property
    def adaptive(self) -> bool:
        """Whether it takes a tolerance and chooses its steps, instead of a budget and a grid."""
        return self._can("adaptive")

    @property
    def deterministic(self) -> bool:
        """Whether it draws no noise on its way."""
        return not self._can("stochastic")

    @property
    def invertible(self) -> bool:
        """Whether its steps can be undone, so that `decode` gives back what was encoded, up to rounding at most."""
        return self._can("reversible")

    @property
    def exact(self) -> bool:
        """Whether they are undone to the last bit."""
        return self._can("exact")

    @property
    def per_sample(self) -> bool:
        """Whether a sample's steps are its own; otherwise what it becomes depends on the others in its batch."""
        return self._can("per_sample", True)

    @property
    def recorded(self) -> bool:
        """Whether torch records its operations, so that a graph leads through them; unless said, those on floats."""
        return self._can("recorded", not self.exact)

    @property
    def slopes_only(self) -> bool:
        """Whether it asks for slopes alone, so that it can carry a density or an adjoint as well."""
        return self._can("slopes_only")

    @property
    def rebuilds(self) -> bool:
        """Whether it can go back for a gradient, state by state."""
        return self.invertible and self._can("pullback")

    @property
    def tells_steps(self) -> bool:
        """Whether it chooses its steps and says which."""
        return self.adaptive and self._can("tells_steps", True)

    @property
    def own_grids(self) -> bool:
        """Whether it steps on its `grids` alone, from noise to the image, as a table of numbers does."""
        return self._can("own_grids")


#: called after every step with (steps done, share of the way, sigma reached, xbar of the batch)
Watch = Callable[[int, float, float, Tensor], None]


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
    y = ode.enter(xbar, sigmas[0])
    return follow(ode, solver, sigmas, Step(y, solver.init(ode, sigmas, y)), watch).y.to(xbar.dtype)


def moves(ode: ProbabilityFlow, solver: Solver, sigmas: Tensor) -> list[Callable[[Step], Step]]:
    """What leads along a grid: the solver's steps and then the arrival, from y on the path to xbar at the last sigma.

    Each is a function of the `Step` before it and of the network's answers alone, so that it can be repeated.
    """
    nodes = nodes_of(solver, sigmas)
    times = ode.path.u(nodes).unbind()

    def interval(u0: Tensor, u1: Tensor) -> Callable[[Step], Step]:
        return lambda at: solver.step(ode, u0, u1, at.y, at.state)

    def arrive(at: Step) -> Step:
        xbar = ode.leave(at.y, nodes[-1])
        if len(nodes) < len(sigmas):
            xbar = ode.predict(xbar, nodes[-1]).data
        if not finite(xbar):
            raise DivergedError("the solver diverged: the state is not finite; use more steps or another method")
        return Step(xbar, at.state)

    return [*starmap(interval, pairwise(times)), arrive]


def follow(ode: ProbabilityFlow, solver: Solver, sigmas: Tensor, begin: Step, watch: Watch | None = None) -> Step:
    """Follow a grid from a state on the path and the solver's own; returns xbar and the solver's state at the end.

    Raises as `integrate`.
    """
    way, at, n, steps = moves(ode, solver, sigmas), begin, 0, len(sigmas) - 1
    try:
        for n, move in enumerate(way):
            at = move(at)
            if watch and n < steps:
                xbar = at.y if move is way[-1] else ode.leave(at.y, sigmas[n + 1])
                watch(n + 1, (n + 1) / steps, float(sigmas[n + 1]), xbar)
    except NonFiniteError as error:
        error.step = n + 1
        raise
    return at
