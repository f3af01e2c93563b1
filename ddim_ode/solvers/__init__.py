"""`METHODS`: every sampling method, one row each. Adding a method is adding a row: docs/adding_a_solver.md."""

import math
from collections.abc import Mapping

from ddim_ode import paths
from ddim_ode.errors import DDIMError, unknown
from ddim_ode.paths import angle, data, flow, noise
from ddim_ode.solvers.base import DivergedError, Method, Solution, Solver, Step, Watch, integrate
from ddim_ode.solvers.exponential import EULER, HEUN, MIDPOINT, THIRDS, Adams, SingleStep
from ddim_ode.solvers.runge_kutta import RungeKutta
from ddim_ode.solvers.weights import BASES, Rule, bh1, equal_steps, half, half_quadratic

__all__ = [
    "METHODS",
    "DivergedError",
    "Method",
    "MethodError",
    "Solution",
    "Solver",
    "Step",
    "Watch",
    "adams",
    "get_method",
    "integrate",
]


PATHS: Mapping[str, paths.Path] = {"noise": noise, "data": data, "angle": angle, "flow": flow}


class MethodError(DDIMError):
    """A method that does not exist or cannot do what was asked."""


def adams(
    order: int, path: str = "angle", basis: str = "angle", corrector: bool = False, grid: str = "trailing_angle"
) -> Method:
    """A variable-step exponential Adams method, with a start-up that keeps its order. Give it to `sample(method=...)`.

    Where path and basis reach sigma = 0 it steps there, which is more accurate than to return xhat0.

    Args:
        order: 1 to 4 (2 to 4 with a corrector), the global order it shows. The first interval of order 4 costs two
            evaluations more, that of order 3 without a corrector one.
        path: "noise", "data", "angle" or "flow": the slope that is interpolated is eps, x0, v or eps - x0.
        basis: "sigma", "log_snr", "angle" or "timestep": the variable in which it is a polynomial.
        corrector: interpolate order - 1 slopes, and repeat each interval when the next evaluation is there.
        grid: the named grid it uses unless told otherwise.

    Raises:
        MethodError: an order, path or basis that does not exist.
    """
    if path not in PATHS:
        raise MethodError(unknown("path", path, PATHS))
    if basis not in BASES:
        raise MethodError(unknown("basis", basis, BASES))
    starts = {2: EULER, 3: EULER, 4: THIRDS} if corrector else {1: EULER, 2: EULER, 3: MIDPOINT, 4: THIRDS}
    if order not in starts:
        raise MethodError(f"order={order!r} is not an order of Adams methods here; choose {min(starts)} to 4")
    name = f"Adams-{'Moulton' if corrector else 'Bashforth'} on `{path}`, polynomial in {basis}"
    return Method(
        solver=Adams(
            basis,
            to_zero=path != "data" and basis in ("sigma", "angle"),
            order=order - corrector,
            corrector=corrector,
            start=starts[order],
        ),
        path=PATHS[path],
        grid=grid,
        order=order,
        evaluations=1,
        summary=name if starts[order] is EULER else f"{name}; +{len(starts[order]) - 1} to start",
    )


def _unipc(order: int, rule: Rule) -> Adams:
    return Adams("log_snr", rule, order=order, corrector=True, lower_final=math.inf)


def _row(
    solver: Solver, path: paths.Path, grid: str, order: int, summary: str, source: str, evaluations: int = 1
) -> Method:
    return Method(solver, path, grid, order, evaluations, f"{summary} ({source})")


SONG, LIU, EDM = "Song et al. 2021", "Liu et al. 2022", "Karras et al. 2022"
DEIS, DPM, DPMPP, UNIPC = "Zhang & Chen 2023", "Lu et al. 2022", "Lu et al. 2022b", "Zhao et al. 2023"
AB4_SIGMA = Adams("sigma", order=4)
DPMPP_3M = Adams("log_snr", half_quadratic, order=3, lower_final=15)

#: `order` is the one that a method shows, start-up and end included: with a first (or, lower_order_final, a last) step
#: of Euler that is 2 whatever the number of slopes.
METHODS: Mapping[str, Method] = {
    "ddim": _row(Adams("log_snr"), data, "uniform", 1, "DDIM", f"{SONG}, Eq. 12, eta = 0"),
    "euler": _row(RungeKutta("euler"), noise, "uniform", 1, "Euler in sigma, DDIM as an ODE", f"{SONG}, Eq. 14"),
    "euler_flow": _row(RungeKutta("euler"), flow, "uniform", 1, "Euler of rectified flow", "Liu et al. 2023"),
    "midpoint": _row(RungeKutta("midpoint"), angle, "uniform", 2, "midpoint rule in the angle", "Runge 1895", 2),
    "heun": _row(RungeKutta("heun2"), noise, "karras", 2, "Heun in sigma", f"EDM: {EDM}, Alg. 1", 2),
    "heun_angle": _row(RungeKutta("heun2"), angle, "uniform", 2, "Heun in the angle", "Heun 1900", 2),
    "heun3": _row(RungeKutta("heun3"), angle, "uniform", 3, "Heun of order 3 in the angle", "Heun 1900", 3),
    "rk4": _row(RungeKutta("rk4"), angle, "uniform", 4, "Runge-Kutta, 3/8 rule, in the angle", "Kutta 1901", 4),
    "plms": _row(Adams("timestep", equal_steps, order=4, start=HEUN), noise, "uniform", 2, "PNDM, +1 to start", LIU),
    "ipndm": _row(
        Adams("timestep", equal_steps, order=4), noise, "uniform", 2, "PNDM with lower orders to start", DEIS
    ),
    "ipndm_v": _row(AB4_SIGMA, noise, "uniform", 2, "iPNDM for unequal steps: lms by another name", "diff-sampler"),
    "lms": _row(AB4_SIGMA, noise, "uniform", 2, "Adams-Bashforth in sigma, 4 slopes", "k-diffusion"),
    "deis_rhoab3": _row(AB4_SIGMA, noise, "uniform", 2, "rhoAB3: lms by another name", DEIS),
    "deis_tab2": _row(Adams("timestep", order=3), noise, "uniform", 2, "tAB2, 3 slopes", DEIS),
    "deis_tab3": _row(Adams("timestep", order=4), noise, "uniform", 2, "tAB3, 4 slopes", DEIS),
    "deis_log2": _row(Adams("log_snr", order=2), noise, "uniform", 2, "in log sigma, 2 slopes", "DEIS of diffusers"),
    "deis_log3": _row(
        Adams("log_snr", order=3, lower_final=15), noise, "uniform", 2, "in log sigma, 3 slopes", "DEIS of diffusers"
    ),
    "dpm_solver_2": _row(SingleStep("log_snr", half), noise, "uniform", 2, "DPM-Solver-2", f"{DPM}, Alg. 1", 2),
    "dpm_solver_3": _row(
        SingleStep("log_snr", pieces=THIRDS), noise, "uniform", 3, "DPM-Solver-3", f"{DPM}, Alg. 2", 3
    ),
    "dpmpp_2s": _row(SingleStep("log_snr", half), data, "uniform", 2, "DPM-Solver++(2S)", f"{DPMPP}, Alg. 1", 2),
    "dpmpp_2m": _row(Adams("log_snr", half, order=2), data, "uniform", 2, "DPM-Solver++(2M)", f"{DPMPP}, Alg. 2"),
    "dpmpp_3m": _row(
        Adams("log_snr", half_quadratic, order=3, lower_final=15),
        data,
        "uniform",
        2,
        "DPM-Solver++(3M)",
        "its authors' code",
    ),
    "unipc_2": _row(_unipc(2, half), data, "uniform", 2, "UniPC-2, B(h) = e^h - 1", UNIPC),
    "unipc_2_bh1": _row(_unipc(2, bh1), data, "uniform", 2, "UniPC-2, B(h) = h", UNIPC),
    "unipc_3": _row(_unipc(3, half), data, "uniform", 2, "UniPC-3, B(h) = e^h - 1", UNIPC),
    "unipc_3_bh1": _row(_unipc(3, bh1), data, "uniform", 2, "UniPC-3, B(h) = h", UNIPC),
    "adams2": adams(2),
    "adams3": adams(3, corrector=True),
    "adams4": adams(4),
}


def get_method(method: str | Method) -> Method:
    """The row of `METHODS`, or what was made by `adams` as it is. Raises MethodError with the closest name."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise MethodError(unknown("method", method, METHODS))
    return METHODS[method]
