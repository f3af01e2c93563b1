"""`METHODS`: every sampling method, one row each. Adding a method is adding a row."""

from collections.abc import Mapping

from ddim_ode import paths
from ddim_ode.grids import unknown
from ddim_ode.solvers.base import Method, Solution, Solver, Step, integrate
from ddim_ode.solvers.runge_kutta import RungeKutta

__all__ = ["METHODS", "Method", "MethodError", "Solution", "Solver", "Step", "get_method", "integrate"]

METHODS: Mapping[str, Method] = {
    "ddim": Method(
        solver=RungeKutta("euler"),
        path=paths.noise,
        grid="uniform",
        order=1,
        evaluations=1,
        summary="Euler in sigma, which is DDIM exactly (Song et al. 2021, Eq. 12 with eta = 0 and Eq. 14)",
    ),
}


class MethodError(ValueError):
    """A method that does not exist or cannot do what was asked."""


def get_method(name: str) -> Method:
    """The row of `METHODS`. Raises MethodError with the closest name."""
    if name not in METHODS:
        raise MethodError(unknown("method", name, METHODS))
    return METHODS[name]
