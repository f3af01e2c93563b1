"""Tables: multistep methods all of whose numbers were found for one model, and hold for that one alone.

On the angle path, with z the noise that sampling begins with and D_n the image that is predicted at sigma_n,

    y_0 = s z,        y_(n+1) = a_n z + sum_(j <= n) c_nj D_j,        y_N the image, at sigma = 0.

Every linear multistep method on a grid is such a table, whatever its path (Shaul et al. 2024, "Bespoke Non-Stationary
Solvers"). The scale s lets a table begin at any sigma_0, where noise alone is as good a state as the flow's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import angle, f64
from ddim_ode.solvers.base import Method, Step


@dataclass(frozen=True)
class Table:
    """The numbers of one method of N predictions.

    sigmas: N, decreasing, where the model is asked. scale: s above. noise: N, the a_n. data: N rows, the n-th of n + 1
    numbers, the c_nj.
    """

    sigmas: tuple[float, ...]
    scale: float
    noise: tuple[float, ...]
    data: tuple[tuple[float, ...], ...]

    @property
    def grid(self) -> tuple[float, ...]:
        """Where it asks, and 0."""
        return (*self.sigmas, 0.0)


class Past(NamedTuple):
    """Noise (B, *shape) on the angle path, and the images that were predicted, oldest first."""

    table: Table
    noise: Tensor
    images: tuple[Tensor, ...]


@dataclass(frozen=True)
class Tabulated:
    """The solver that follows a table: the one whose sigmas are the grid's."""

    tables: tuple[Table, ...]

    to_zero = True
    own_grids = True  # it can step nowhere else, nor begin with anything but noise

    def init(self, ode: ProbabilityFlow, sigmas: Tensor, y: Tensor) -> Past:
        table = next(table for table in self.tables if len(table.grid) == len(sigmas))
        return Past(table, ode.leave(y, sigmas[0]) / float(ode.model.path.prior_std(sigmas[0])), ())

    def step(self, ode: ProbabilityFlow, u0: Tensor, u1: Tensor, y: Tensor, state: Past) -> Step:
        table, noise, images = state
        n = len(images)
        sigma = f64(table.sigmas[n])
        images = (*images, ode.predict(ode.leave(y if n else table.scale * noise, sigma), sigma).data)
        y = table.noise[n] * noise
        for weight, image in zip(table.data[n], images, strict=True):
            y = y.add(image, alpha=weight)
        return Step(y, Past(table, noise, images))


def tabulated(tables: Sequence[Table]) -> Method:
    """The method that has these tables, for one budget each."""
    solver = Tabulated(tuple(sorted(tables, key=lambda table: len(table.sigmas))))
    counts = ", ".join(str(len(table.sigmas)) for table in solver.tables)
    return Method(
        solver=solver,
        path=angle,
        grid="",
        order=1,
        evaluations=1,
        summary=f"tables for {counts} predictions, tuned to a model",
        grids=tuple(table.grid for table in solver.tables),
    )
