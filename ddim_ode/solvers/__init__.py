"""`METHODS`: every sampling method, one row each. Adding a method is adding a row."""

from collections.abc import Mapping

from ddim_ode import paths
from ddim_ode.errors import DDIMError, unknown
from ddim_ode.solvers.base import DivergedError, Method, Solution, Solver, Step, Watch, integrate
from ddim_ode.solvers.ddim import DDIM
from ddim_ode.solvers.runge_kutta import RungeKutta

__all__ = [
    "METHODS",
    "DivergedError",
    "Method",
    "MethodError",
    "Solution",
    "Solver",
    "Step",
    "Watch",
    "get_method",
    "integrate",
]

METHODS: Mapping[str, Method] = {
    "ddim": Method(
        solver=DDIM(),
        path=paths.noise,
        grid="uniform",
        order=1,
        evaluations=1,
        summary="DDIM (Song et al. 2021, Eq. 12 with eta = 0): Euler in sigma, without its rounding errors",
    ),
    "euler": Method(
        solver=RungeKutta("euler"),
        path=paths.noise,
        grid="uniform",
        order=1,
        evaluations=1,
        summary="torchdiffeq's Euler in sigma: DDIM as an ODE (Song et al. 2021, Eq. 14)",
    ),
}


class MethodError(DDIMError):
    """A method that does not exist or cannot do what was asked."""


def get_method(name: str) -> Method:
    """The row of `METHODS`. Raises MethodError with the closest name."""
    if name not in METHODS:
        raise MethodError(unknown("method", name, METHODS))
    return METHODS[name]
