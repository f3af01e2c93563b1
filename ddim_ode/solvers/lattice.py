"""The arithmetic of states that come back: floats as they are, or integers, which lose nothing.

A float state is rounded once to the lattice. From then on only whole units are added and taken away, and the same sum
taken away again leaves the same integer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddim_ode.solvers.base import DivergedError
from ddim_ode.support.waiting import below

UNIT = 2.0**-52  # of the lattice: a float32 image in [-1, 1] comes back bit for bit if no value is below 2^-27
LIMIT = 256.0  # of a state and of an increment: 2 (y + dy) - z, five of them, is still below 2^63


@dataclass(frozen=True)
class Floats:
    """Numbers as they are."""

    def enter(self, y: Tensor) -> Tensor:
        return y

    leave = increment = check = enter


@dataclass(frozen=True)
class Lattice:
    """States as integers in units of 2^-52."""

    def enter(self, y: Tensor) -> Tensor:
        """(B, *shape) int64."""
        return self.increment(y)

    def increment(self, dy: Tensor) -> Tensor:
        """A float increment as whole units. Rounding is odd, so that -dy takes away what dy has added."""
        dy = dy.double()
        _within(dy)
        return (dy / UNIT).round().long()

    def check(self, y: Tensor) -> Tensor:
        """y itself. Raises DivergedError before a sum of such states could wrap around."""
        _within(y.double() * UNIT)
        return y

    def leave(self, y: Tensor) -> Tensor:
        """(B, *shape) float64."""
        return y.double() * UNIT


FLOATS, LATTICE = Floats(), Lattice()


def _within(y: Tensor) -> None:
    largest = torch.linalg.vector_norm(y.detach(), torch.inf)
    if not below(largest, LIMIT):
        raise DivergedError(
            f"the state leaves the range of fixed-point numbers, +-{LIMIT:g}: found {float(largest):.3g}"
            "; use more steps, or a method in floating point"
        )
