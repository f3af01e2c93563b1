"""Exponential Adams methods, multistep and single-step: a table of weights, made once for a grid, and one loop over it.

Every method here evaluates somewhere, and moves from the start of its interval by a weighted sum of the slopes
seen so far (see `weights`):

    y(next) = y0 + sum_j V_j f_j,        y0 = a0 xhat0 + b0 ehat.

y0 is rebuilt from the prediction made there, because at large sigma xbar + (sigma1 - sigma0) ehat cancels: on a cosine
schedule that begins at sigma = 20000 it keeps three decimals of a float32 image.

A corrector (Zhao et al. 2023, UniC) repeats the last interval with the evaluation at its end as one more node. The
difference between the two is again a weighted sum of slopes, so it is added to V and costs nothing.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError, unknown
from ddim_ode.models.denoiser import Prediction
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import Path, f64
from ddim_ode.solvers.base import Step, nodes_of
from ddim_ode.solvers.lagrange import lagrange
from ddim_ode.solvers.weights import BASES, Rule, ddim, exact, weights
from ddim_ode.support.remembering import remembering

#: A step in pieces: (where each ends, in units of the interval in w; which of the step's evaluations it uses)
Pieces = tuple[tuple[float, tuple[int, ...]], ...]

EULER: Pieces = ((1, (0,)),)
HEUN: Pieces = ((1, (0,)), (1, (0, 1)))
MIDPOINT: Pieces = ((1 / 2, (0,)), (1, (0, 1)))
THIRDS: Pieces = ((1 / 3, (0,)), (2 / 3, (0, 1)), (1, (0, 2)))  # Heun's third-order rule, DPM-Solver-3


class Stage(NamedTuple):
    """One evaluation, and the move from it to the next."""

    sigma: Tensor  # () float64, where to evaluate
    slope: tuple[float, float]  # (a', b') there
    data: float  # y(next) = data xhat0 + noise ehat, of the interval's first prediction, ...
    noise: float
    terms: tuple[tuple[int, float], ...]  # ... + weight * slope for every (age, weight); age 0 is this evaluation


class WeightTable(NamedTuple):
    rows: tuple[tuple[Stage, ...], ...]  # one an interval
    depth: int  # slopes to remember


class History(NamedTuple):
    table: WeightTable
    done: int  # intervals
    slopes: tuple[Tensor, ...]  # newest first


@dataclass(frozen=True)
class Exponential(ABC):
    """A method that is a table of weights, made once for a grid.

    basis: a name in `BASES`. rule: what becomes of the moments.
    to_zero: step to sigma = 0 instead of returning xhat0; the path's time and the basis must be finite there.
    to_image: of that step, only go to the model's smallest sigma, and say the image that the slope there, extrapolated,
        predicts: a model knows nothing of smaller ones.
    """

    basis: str
    rule: Rule = exact
    to_zero: bool = False
    to_image: bool = False

    def __post_init__(self) -> None:
        if self.basis not in BASES:
            raise DDIMError(unknown("basis", self.basis, BASES))

    @abstractmethod
    def fill(self, table: "Builder", nodes: Sequence[float], intervals: int) -> None:
        """Put a row into the table from each node to the next; `intervals` has the denoising at the end, too."""

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> History:
        nodes = tuple(nodes_of(self, sigmas).tolist())
        return History(_table(self, ode.path, ode.model.path, nodes, len(sigmas) - 1), 0, ())

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: History) -> Step:
        table, done, slopes = state
        row = table.rows[done]
        first: Prediction | None = None
        for stage in row:
            prediction = ode.predict(ode.leave(y, stage.sigma), stage.sigma)
            if first is None:
                first = prediction
            if table.depth:
                slope = stage.slope[0] * prediction.data + stage.slope[1] * prediction.noise
                slopes = (slope, *slopes[: table.depth - 1])
            y = stage.data * first.data + stage.noise * first.noise
            for age, weight in stage.terms:
                y = y.add(slopes[age], alpha=weight)
        return Step(y, History(table, done + 1, slopes))


@dataclass(frozen=True)
class SingleStep(Exponential):
    """Every interval on its own, in `pieces`: DPM-Solver-2 and -3, DPM-Solver++(2S)."""

    pieces: Pieces = MIDPOINT

    one_step = True

    def fill(self, table: "Builder", nodes: Sequence[float], intervals: int) -> None:
        for sigma0, sigma1 in pairwise(nodes):
            table.interval(table.evaluate(sigma0), table.split(sigma0, sigma1, self.pieces))


@dataclass(frozen=True)
class Adams(Exponential):
    """Adams-Bashforth for steps of any size; with a corrector, Adams-Moulton at the same cost.

    order: slopes in the polynomial, 1 to 4; the first intervals have fewer.
    corrector: repeat each interval with the slope at its end as one more node, for one order more.
    start: the pieces of the first interval. EULER is what the published methods do, and it keeps the global order
        at 2 (3 with a corrector); MIDPOINT costs one evaluation more and supports order 3, THIRDS two for order 4.
    lower_final: on grids of fewer intervals than this, none uses more slopes than there are intervals left.
    most: use fewer slopes where the weights, taken without sign, add up to more than so many times their sum: where the
        steps grow so fast that a polynomial through the past says nothing. On equal steps they do to 6.7 at order 4.
    """

    order: int = 1
    corrector: bool = False
    start: Pieces = EULER
    lower_final: float = 0
    most: float = math.inf

    @property
    def one_step(self) -> bool:
        """Whether it uses no slope but that at the start of the step."""
        return self.order == 1 and not self.corrector

    def fill(self, table: "Builder", nodes: Sequence[float], intervals: int) -> None:
        history: list[int] = []  # evaluations worth interpolating, newest first
        predicted: dict[int, float] = {}
        for n, (sigma0, sigma1) in enumerate(pairwise(nodes)):
            now = table.evaluate(sigma0)
            correction = {}
            if n and self.corrector:
                base, *others = predicted
                corrected = table.weights(base, sigma0, [base, now, *others])
                correction = {e: w - predicted.get(e, 0.0) for e, w in corrected.items()}
            pieces = table.split(sigma0, sigma1, self.start)
            if n:
                left = intervals - n if intervals < self.lower_final else self.order
                used = [now, *history][: min(self.order, left)]
                while table.spread(now, sigma1, used) > self.most:
                    used.pop()
                pieces = [(sigma1, used)]
            predicted = table.interval(now, pieces, correction)
            fresh = {e for e in pieces[-1][1] if table.at[e] != sigma1} - set(history)
            history = [*sorted(fresh, reverse=True), *history]


class Builder:
    """A table in the making. Evaluations are numbered; `at` are their sigmas."""

    def __init__(self, solver: Exponential, path: Path, model_path: Path):
        self.solver, self.path, self.model_path = solver, path, model_path
        self.at: list[float] = []
        self.rows: list[tuple[Stage, ...]] = []

    def evaluate(self, sigma: float) -> int:
        """The number of a new evaluation at sigma."""
        self.at.append(sigma)
        return len(self.at) - 1

    def split(self, sigma0: float, sigma1: float, pieces: Pieces) -> list[tuple[float, list[int]]]:
        """The pieces of an interval that begins with the latest evaluation, as (sigma at their end, evaluations)."""
        to, back = BASES[self.solver.basis]
        w0, w1 = to(self.model_path, f64([sigma0, sigma1]))
        base = len(self.at) - 1
        ends = [float(back(self.model_path, w0 + part * (w1 - w0))) if part < 1 else sigma1 for part, _ in pieces]
        return [(end, [base + e for e in uses]) for end, (_, uses) in zip(ends, pieces, strict=True)]

    def weights(self, base: int, sigma: float, nodes: Sequence[int]) -> dict[int, float]:
        """What each evaluation counts in the move from evaluation `base`, the first of the nodes, to sigma."""
        found = weights(
            self.path,
            self.model_path,
            self.solver.basis,
            self.solver.rule,
            self.at[base],
            sigma,
            [self.at[e] for e in nodes],
        )
        return dict(zip(nodes, found, strict=True))

    def spread(self, base: int, sigma: float, nodes: Sequence[int]) -> float:
        """The weights' absolute values, summed, in units of their sum."""
        found = self.weights(base, sigma, nodes).values()
        return sum(map(abs, found)) / abs(sum(found))

    def interval(
        self, base: int, pieces: Sequence[tuple[float, Sequence[int]]], correction: Mapping[int, float] | None = None
    ) -> dict[int, float]:
        """Append a row that starts with evaluation `base`; the weights of its last piece, correction apart."""
        row = []
        predicted: dict[int, float] = {}
        for n, (sigma, nodes) in enumerate(pieces):
            if n:
                self.evaluate(pieces[n - 1][0])
            least = self.model_path.sigma_min
            image = sigma == 0 and self.solver.to_image and 0 < least <= self.at[base]
            predicted = self.weights(base, least if image else sigma, nodes)
            moved = dict(predicted)
            for e, w in (correction or {}).items():
                moved[e] = moved.get(e, 0.0) + w
            row.append(self._image(base, moved, nodes) if image else self._stage(base, moved))
        self.rows.append(tuple(row))
        return predicted

    def _image(self, base: int, moved: Mapping[int, float], nodes: Sequence[int]) -> Stage:
        """The image that the state at the model's smallest sigma, where `moved` leads, and the slope there predict."""
        sigma = f64([self.model_path.sigma_min])
        of_state, of_slope = (float(weight) for weight in ddim(self.path, self.path.u(sigma), f64(0.0)))
        *at, end = BASES[self.solver.basis].w(self.model_path, torch.cat([f64([self.at[e] for e in nodes]), sigma]))
        slope = lagrange(torch.stack(at).numpy()[None], end.reshape(1, 1).numpy())[0, 0, -1].tolist()
        found = {e: of_state * weight for e, weight in moved.items()}
        for e, value in zip(nodes, slope, strict=True):
            found[e] += of_slope * value
        return self._stage(base, found, of_state)

    def _stage(self, base: int, moved: Mapping[int, float], state: float = 1.0) -> Stage:
        """`state` times the state at evaluation `base`, moved by the slopes."""
        now = len(self.at) - 1
        sigma = f64(self.at[now])
        u0 = self.path.u(f64(self.at[base]))
        (a, b), (da, db) = self.path.coefficients(u0), self.path.slopes(u0)
        own = moved[base]  # goes with y0, in one coefficient: this is where float32 would cancel
        da_now, db_now = self.path.slopes(self.path.u(sigma))
        return Stage(
            sigma=sigma,
            slope=(float(da_now), float(db_now)),
            data=float(state * a + own * da),
            noise=float(state * b + own * db),
            terms=tuple((now - e, w) for e, w in moved.items() if e != base),
        )


@remembering(256)
def _table(solver: Exponential, path: Path, model_path: Path, nodes: tuple[float, ...], intervals: int) -> WeightTable:
    builder = Builder(solver, path, model_path)
    solver.fill(builder, nodes, intervals)
    ages = [age for row in builder.rows for stage in row for age, _ in stage.terms]
    return WeightTable(tuple(builder.rows), 1 + max(ages, default=-1))
