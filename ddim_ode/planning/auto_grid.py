"""`grid="auto"`: the steps of any method, where its own errors on a model's flow cancel best or are smallest.

A stand-in takes the network's place. Along the trajectories of a `Profile` it says what the network said, and beside
them it is linear with one number, the share J of an error that the predicted image has:

    image(xbar, sigma) = image*(sigma) + J(sigma) (xbar - xbar*(sigma))

The method runs on it in milliseconds, and misses the trajectories' ends by nearly as much as on the network. So grids
are tried on the stand-in: log sigma at the quantiles of a logistic distribution that has a width of its own on either
side, four numbers, found by the simplex method of Nelder and Mead (1965) from the best of a table. It and the
named grids that look best are run on the network, for a last word.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.grids import GRIDS, make_grid
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Model, Prediction
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import Path, f64
from ddim_ode.planning.profile import Profile
from ddim_ode.solvers import Method, integrate
from ddim_ode.support.logistic import Logistic

MOST = 24  # intervals that are tried; longer grids have the shape of that one
DOUBTS = (0.12, 0.3)  # by how much J may be wrong, of which a network has as many as an image has directions
TRIALS = 40  # of the simplex, from each of the best two of the table


TABLE = [
    Logistic(math.exp(centre), above, below, left)
    for centre, (above, below), left in product(
        (-1.5, -0.7, 0.0), ((1.2, 1.5), (1.5, 1.5), (1.2, 3.0), (3.0, 3.0), (2.0, 1.5)), (0.0, 1.0)
    )
]
FINALISTS = 4  # that are run on the model itself
BETTER = 0.85  # of what the first misses, or less, is what another must miss there to be taken
SIMPLEX = (0.4, 0.25, 0.25, 0.3)  # its first edges: the centre, the logarithms of both widths, and what is left


@dataclass(frozen=True, eq=False)
class StandIn:
    """A model in the network's place, see above."""

    profile: Profile
    path: Path
    doubt: float = 0.0  # it is told three ways, with J, with less and with more
    num_classes = 0
    device = torch.device("cpu")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.profile.end.shape[1:])

    @property
    def sigma_min(self) -> float:
        return self.path.sigma_min

    @property
    def sigma_max(self) -> float:
        return self.path.sigma_max

    def evaluations(self, sigma: float) -> int:
        return 1

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        sigma = float(sigma)
        state, image = (x.repeat(3, 1) for x in self.profile.at(sigma))
        leak = (self.profile.leak(sigma) + self.doubts).clamp(0, 1)
        image = image + leak * (xbar - state)
        return Prediction(image, (xbar - image) / sigma, 1)

    @cached_property
    def doubts(self) -> Tensor:
        """(3 K, 1), what J is wrong by."""
        return self.doubt * f64([-1.0, 0.0, 1.0]).repeat_interleave(len(self.profile.end))[:, None]

    @cached_property
    def start(self) -> Tensor:
        """(3 K, P), the states at the largest sigma."""
        return self.profile.at(self.sigma_max)[0].repeat(3, 1)

    def missed(self, method: Method, sigmas: Tensor) -> float:
        """What the method on that grid misses: RMS, geometric mean over the samples; infinite where it cannot run."""
        ode = ProbabilityFlow(self, method.path, (0.0, self.sigma_max))
        try:
            found = integrate(ode, method.solver, sigmas, self.start)
        except (DDIMError, ArithmeticError, ValueError):  # nodes too close to each other, or a state that ran away
            return math.inf
        errors = (found.reshape(3, *self.profile.end.shape) - self.profile.end).square().mean((0, 2)).sqrt()
        return float(errors.clamp(min=1e-15).log().mean().exp())


def auto_grid(model: Model, profile: Profile, method: Method, intervals: int) -> Tensor:
    """The grid of so many intervals, (intervals + 1,) float64 sigmas of which the last is 0.

    The likeliest are run on the model itself, from the noise of the profile. The first is taken, unless another is
    clearly better there: the samples are few.
    """
    ranked = likely_grids(profile, model.path, method, intervals)[:FINALISTS]
    missed = [profile.missed(model, method, sigmas) for sigmas in ranked]
    best = missed.index(min(missed))
    return ranked[best if missed[best] <= BETTER * missed[0] else 0]


def to_zero(shape: Logistic, path: Path, intervals: int) -> Tensor:
    """(intervals + 1,) float64 sigmas, the last of which is 0."""
    return torch.cat([shape.nodes(path.sigma_max, path.sigma_min, intervals), f64([0.0])])


def likely_grids(profile: Profile, path: Path, method: Method, intervals: int) -> list[Tensor]:
    """Grids of so many intervals for a model on `path`: one found for each doubt, then named ones, by what the stand-in
    misses on them.
    """
    count = min(intervals, MOST)
    if count < 3:
        return [make_grid("logistic", path, intervals, "denoise")]
    found = [
        to_zero(_found(StandIn(profile, path, doubt), method, count), path, intervals) for doubt in reversed(DOUBTS)
    ]
    model = StandIn(profile, path, DOUBTS[0])
    named = sorted(_named(path, count, intervals), key=lambda pair: model.missed(method, pair[0]))
    return [*found, *(many for _, many in named)]


def _found(model: StandIn, method: Method, count: int) -> Logistic:
    """The shape that the simplex method leads to from the best two of the table."""

    def missed(shape: Logistic) -> float:
        return model.missed(method, to_zero(shape, model.path, count))

    ranked = sorted(TABLE, key=missed)
    return min([ranked[0], *(_improved(model, method, shape, count) for shape in ranked[:2])], key=missed)


def _improved(model: StandIn, method: Method, shape: Logistic, count: int) -> Logistic:
    def unpacked(x: np.ndarray) -> Logistic:
        return Logistic(math.exp(x[0]), math.exp(x[1]), math.exp(x[2]), x[3])

    def loss(x: np.ndarray) -> float:
        found = unpacked(x)
        if not (abs(x[0]) < 5 and 0 <= found.left <= 1.5 and min(found[1:3]) > 0.3 and max(found[1:3]) < 12):
            return 1e3
        return math.log(model.missed(method, to_zero(found, model.path, count))) if math.isfinite(x.sum()) else 1e3

    start = np.array([*np.log(shape[:3]), min(max(shape.left, 0.1), 0.9)])
    edges = np.diag(SIMPLEX)
    edges[3, 3] *= 1 if start[3] < 0.5 else -1
    options = {"maxfev": TRIALS, "initial_simplex": np.vstack([start, start + edges])}
    return unpacked(minimize(loss, start, method="Nelder-Mead", options=options).x)


def _named(path: Path, count: int, intervals: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each named grid that the path can have, with few intervals and with as many as are asked for."""
    for name in GRIDS:
        try:
            yield make_grid(name, path, count, "denoise"), make_grid(name, path, intervals, "denoise")
        except DDIMError:
            continue
