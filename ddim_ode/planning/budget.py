"""A grid that spends a budget of evaluations: the largest one that costs no more."""

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddim_ode.grids import GridError, GridWarning, check_grid, make_grid, most_intervals, shape_of
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, Prediction
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import Path, f64
from ddim_ode.planning.auto_grid import auto_grid
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import DEFAULT_NFE, SolveOptions
from ddim_ode.planning.profile import Profile, profile_of
from ddim_ode.solvers import Solver, integrate
from ddim_ode.support.remembering import remembering

ENCODING = "near_image"  # the grid of a method whose steps can be undone, on its way up
ROUNDED = 1e-9  # by which a sigma may miss the model's smallest and still be that
NOISY, HOPELESS = 3.0, 0.75  # the sigma above which steps are lost, and the share of them that is too much


class DryRun:
    """What a solver asks for on a grid, found on one pixel and without the network.

    asked: the sigmas of its predictions, in order. nfe: what they would cost.
    """

    def __init__(self, model: Model, path: Path, solver: Solver, sigmas: Tensor):
        silent, grid = Silent(model.path, model.sigma_max, len(model.shape)), tuple(sigmas.tolist())
        try:
            self.asked = _asked(silent, path, solver, grid)
        except AttributeError:  # of somebody's own, which reads what only the model itself has
            self.asked = _asked_of(model, path, solver, grid)
        self.nfe = sum(map(model.evaluations, self.asked))


@dataclass(frozen=True)
class Silent:
    """A model that is not asked, as far as a solver sees it: one pixel, whatever the axes."""

    path: Path
    sigma_max: float
    axes: int
    num_classes = 0
    device = torch.device("cpu")

    @property
    def shape(self) -> tuple[int, ...]:
        return (1,) * self.axes

    @property
    def sigma_min(self) -> float:
        return self.path.sigma_min

    def evaluations(self, sigma: float) -> int:
        return 1

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        return Prediction(xbar, xbar, 1)


class Listening(ProbabilityFlow):
    """An ODE that keeps the sigmas at which it is asked."""

    def __init__(self, model: Model, path: Path, highest: float):
        super().__init__(model, path, domain=(0.0, highest))
        self.brownian = Still()
        self.asked: list[float] = []

    def predict(self, xbar: Tensor, sigma: Tensor) -> Prediction:
        self.asked.append(float(sigma))
        return Prediction(xbar, xbar, 1)


@remembering(128)
def _asked(model: Silent, path: Path, solver: Solver, sigmas: tuple[float, ...]) -> tuple[float, ...]:
    """`_asked_of` a model of which no more need be known."""
    return _asked_of(model, path, solver, sigmas)


def _asked_of(model: Model, path: Path, solver: Solver, sigmas: tuple[float, ...]) -> tuple[float, ...]:
    """The sigmas of a solver's predictions on a grid."""
    ode = Listening(model, path, max(*sigmas, model.sigma_max))
    integrate(ode, solver, f64(sigmas), torch.zeros(1, *(1 for _ in model.shape)))
    return tuple(ode.asked)


class Still:
    """A Brownian path that does not move."""

    def increment(self, sigma0: Tensor | float, sigma1: Tensor | float) -> tuple[Tensor, Tensor]:
        return torch.zeros(1), torch.zeros(1)


def grid_for(model: Model, options: SolveOptions, upward: bool = False, labelled: bool = False) -> Tensor:
    """The grid, (N + 1,) float64 sigmas, that spends as much of the budget `options.nfe` as the method can.

    They decrease; `upward`, the budget is that of the way from the last of them to the first. labelled: whether the
    samples have labels, for `grid="auto"`, which is placed for so many intervals as `logistic` would have.

    Raises:
        SampleError: a budget that one step, or every grid of the method, exceeds, or that contradicts an explicit grid.
        GridError: a grid that this model cannot have.
    """
    method, nfe, final = options.row, options.nfe, options.final
    assert not method.adaptive

    def dry(sigmas: Tensor) -> DryRun:
        return DryRun(model, method.path, method.solver, sigmas.flip(0) if upward else sigmas)

    if options.grid == "auto" or isinstance(options.grid, Profile):
        return _auto(model, options, grid_for(model, replace(options, grid="logistic"), upward), labelled)
    if options.grid is not None and not isinstance(options.grid, str):
        sigmas = check_grid(options.grid, model.path)
        if nfe is not None and nfe != (cost := int(dry(sigmas).nfe)):
            raise SampleError(f"nfe={nfe} contradicts an explicit grid that costs {cost}; leave nfe out")
        return sigmas
    if options.grid is None and method.grids:
        return _longest(model, options, upward)
    own = ENCODING if upward and method.invertible else method.grid
    name = own if options.grid is None else options.grid
    budget = DEFAULT_NFE if nfe is None else nfe
    most = most_intervals(name, model.path, final)
    each = method.evaluations  # predictions a step
    if upward and most >= 3:
        two, three = (len(dry(make_grid(name, model.path, n, final)).asked) for n in (2, 3))
        each = three - two
    for intervals in range(int(min(budget, most)), 0, -1):
        if each * (intervals - 1) < budget:
            sigmas = make_grid(name, model.path, intervals, final)
            if _least_cost(model, each, sigmas) <= budget and dry(sigmas).nfe <= budget:
                _warn_if_hopeless(name, model.path, sigmas)
                return sigmas
    cost = int(dry(make_grid(name, model.path, 1, final)).nfe)
    raise SampleError(f"nfe={budget} is too small: one step costs {cost} evaluations; use nfe >= {cost}")


def _auto(model: Model, options: SolveOptions, like: Tensor, labelled: bool) -> Tensor:
    """As many intervals as `like` has, where the method's errors on this model are smallest."""
    if not options.row.deterministic or options.row.exact:
        raise GridError(f"grid='auto' is for methods without noise, in floats; give {options.name} a named grid")
    profile = options.grid if isinstance(options.grid, Profile) else profile_of(model, labelled)
    profile.check(model)
    sigmas = auto_grid(model, profile, options.row, len(like) - 1)
    return check_grid(sigmas if options.final == "denoise" else _to_sigma_min(model, sigmas), model.path)


def priced(model: Model, options: SolveOptions, upward: bool = False) -> list[tuple[int, Tensor]]:
    """The grids of a method that has its own, each after what a sample costs on it, the cheapest first.

    Raises GridError for one that this model cannot have.
    """
    found = [(_cost(model, options, sigmas, upward), sigmas) for sigmas in _brought(model, options)]
    return sorted(found, key=lambda pair: pair[0])


def _longest(model: Model, options: SolveOptions, upward: bool) -> Tensor:
    """The longest of the method's own grids that the budget allows; without a budget the longest of all."""
    for sigmas in sorted(_brought(model, options), key=len, reverse=True):
        if options.nfe is None:
            return sigmas
        least = 0 if upward else _least_cost(model, options.row.evaluations, sigmas)  # which spares most trials
        if least <= options.nfe and _cost(model, options, sigmas, upward) <= options.nfe:
            return sigmas
    costs = [cost for cost, _ in priced(model, options, upward)]
    raise SampleError(
        f"nfe={options.nfe} is too small: {options.name} has grids for {', '.join(map(str, costs))} evaluations"
        f"; use nfe >= {costs[0]}, or tune it for fewer"
    )


def _brought(model: Model, options: SolveOptions) -> list[Tensor]:
    """The grids that come with the method, with the end that is asked for."""
    grids = [check_grid(grid, model.path) for grid in options.row.grids]
    return [_to_sigma_min(model, grid) for grid in grids] if options.final == "sigma_min" else grids


def _cost(model: Model, options: SolveOptions, sigmas: Tensor, upward: bool) -> int:
    """What a sample costs on a grid."""
    method = options.row
    return int(DryRun(model, method.path, method.solver, sigmas.flip(0) if upward else sigmas).nfe)


def _to_sigma_min(model: Model, sigmas: Tensor) -> Tensor:
    """The grid, ending at the model's smallest sigma instead of with the image."""
    return torch.cat([sigmas[sigmas > model.sigma_min * (1 + ROUNDED)], f64([model.sigma_min])])


def _least_cost(model: Model, each: int, sigmas: Tensor) -> int:
    """A bound that is quick to find: an evaluation where each interval begins, and single passes for the others."""
    steps = int((sigmas > 0).sum()) - 1
    return sum(model.evaluations(sigma) for sigma in sigmas[:-1].tolist()) + steps * (each - 1)


def _warn_if_hopeless(grid: str, path: Path, sigmas: Tensor) -> None:
    """Say so in a GridWarning where nearly every step of a named grid is spent on noise, and which grid does better.

    Even steps of sigma from 80 are the example: nine in ten of them are above 8.
    """
    intervals = len(sigmas) - 1
    if intervals < 4 or shape_of(grid):
        return
    lost, fewer = (int((s[:-1] > NOISY).sum()) for s in (sigmas, make_grid("logistic", path, intervals, "denoise")))
    if lost > HOPELESS * intervals and fewer < lost:
        warnings.warn(
            f"grid={grid!r} spends {lost} of {intervals} steps above sigma={NOISY:g}, where there is little but noise;"
            f" grid='logistic' spends {fewer} there",
            GridWarning,
            stacklevel=2,
        )
