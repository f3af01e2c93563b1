"""Runge-Kutta steps of a tableau,

k_j = h f(u0 + c_j h, y0 + sum_i a_ji k_i),        y1 = y0 + sum_j b_j k_j.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ddim_ode.errors import DDIMError, unknown
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.solvers.base import Step

Weights = tuple[float, ...]


class Tableau(NamedTuple):
    """Of an explicit method: where each slope but the first is taken, from which of those before, and their sum."""

    c: Weights
    a: tuple[Weights, ...]
    b: Weights


TABLEAUS: Mapping[str, Tableau] = {
    "euler": Tableau((), (), (1,)),
    "midpoint": Tableau((1 / 2,), ((1 / 2,),), (0, 1)),  # Runge 1895
    "heun2": Tableau((1,), ((1,),), (1 / 2, 1 / 2)),  # Heun 1900
    "heun3": Tableau((1 / 3, 2 / 3), ((1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),  # Heun 1900
    "rk4": Tableau(  # the 3/8 rule (Kutta 1901)
        (1 / 3, 2 / 3, 1), ((1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)
    ),
}


@dataclass(frozen=True)
class RungeKutta:
    """One step of the tableau of that name, from u0 to u1."""

    tableau: str

    to_zero = False  # it would evaluate there
    slopes_only = True
    one_step = True

    def __post_init__(self) -> None:
        if self.tableau not in TABLEAUS:
            raise DDIMError(unknown("tableau", self.tableau, TABLEAUS))

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> None:
        return None

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: None) -> Step:
        h, (c, a, b) = u1 - u0, TABLEAUS[self.tableau]
        moves = [h * ode(u0, y)]
        for share, weights in zip(c, a, strict=True):
            moves.append(h * ode(u0 + share * h, y + _sum(weights, moves)))
        return Step(y + _sum(b, moves), None)


def _sum(weights: Sequence[float], moves: Sequence[Tensor]) -> Tensor:
    """What some moves come to."""
    first, *others = [(weight, move) for weight, move in zip(weights, moves, strict=True) if weight]
    total = first[0] * first[1]
    for weight, move in others:
        total = total.add(move, alpha=weight)
    return total
