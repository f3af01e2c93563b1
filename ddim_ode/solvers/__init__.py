"""`METHODS`: every sampling method, one row each. Adding a method is adding a row: docs/adding_a_solver.md."""

import math
from collections.abc import Mapping
from dataclasses import replace

from ddim_ode import paths
from ddim_ode.errors import DDIMError
from ddim_ode.grids import shape_of
from ddim_ode.paths import angle, data, flow, noise
from ddim_ode.solvers.adaptive import TorchDiffEq
from ddim_ode.solvers.adaptive_adams import AdaptiveAdams
from ddim_ode.solvers.base import (
    Adaptive,
    Control,
    DivergedError,
    Method,
    Outcome,
    Reversible,
    Solver,
    Step,
    Watch,
    follow,
    integrate,
    moves,
)
from ddim_ode.solvers.default_grids import DEFAULT_GRIDS
from ddim_ode.solvers.exponential import EULER, HEUN, MIDPOINT, THIRDS, Adams, SingleStep
from ddim_ode.solvers.lattice import LATTICE
from ddim_ode.solvers.reversible import BDIA, BELM, EDICT, FixedPoint, Leapfrog, ReversibleHeun
from ddim_ode.solvers.runge_kutta import RungeKutta
from ddim_ode.solvers.solution import Solution
from ddim_ode.solvers.stochastic import Churn, SDEDPMpp2M
from ddim_ode.solvers.torch_sde import AdaptiveSDE, TorchSDE
from ddim_ode.solvers.weights import BASES, bh1, equal_steps, half, half_quadratic
from ddim_ode.support.checks import choice, described, flag, shown
from ddim_ode.support.scalars import index

__all__ = [
    "METHODS",
    "Adaptive",
    "Control",
    "DivergedError",
    "Method",
    "MethodError",
    "Outcome",
    "Reversible",
    "Solution",
    "Solver",
    "Step",
    "Watch",
    "adams",
    "follow",
    "get_method",
    "integrate",
    "moves",
]


PATHS: Mapping[str, paths.Path] = {"noise": noise, "data": data, "angle": angle, "flow": flow}


#: Where our Adams methods use fewer slopes, see `Adams.most`. On their default grids they stay below it; from
#: sigma = 20000 down in equal steps of log sigma, a cubic in the angle would send images to 100.
MOST = 20.0


TUNED = "tuned"  # the name of what lies beside a model, which no method has by itself


class MethodError(DDIMError):
    """A method that does not exist or cannot do what was asked."""


def adams(
    order: int, path: str = "angle", basis: str = "angle", corrector: bool = False, grid: str | None = None
) -> Method:
    """A variable-step exponential Adams method, with a start-up that keeps its order. Give it to `sample(method=...)`.

    Where path and basis reach sigma = 0 it steps there, which is more accurate than to return xhat0.

    Args:
        order: 1 to 4 (2 to 4 with a corrector), the global order it shows. The first interval of order 4 costs two
            evaluations more, that of order 3 without a corrector one: with nfe=3 order 4 can only denoise once.
        path: "noise", "data", "angle" or "flow": the slope that is interpolated is eps, x0, v or eps - x0.
        basis: "sigma", "log_snr", "angle" or "timestep": the variable in which it is a polynomial.
        corrector: interpolate order - 1 slopes, and repeat each interval when the next evaluation is there.
        grid: the named grid it uses unless told otherwise; None is that of `adams2`, `adams3` or `adams4`.

    Raises:
        MethodError: an order, path or basis that does not exist. GridError: a grid.
    """
    for kind, name, known in [("path", path, PATHS), ("basis", basis, BASES)]:
        choice(kind, name, known, MethodError)
    flag("corrector", corrector)
    starts = {2: EULER, 3: EULER, 4: THIRDS} if corrector else {1: EULER, 2: EULER, 3: MIDPOINT, 4: THIRDS}
    if (whole := index(order)) not in starts or whole is None:
        raise MethodError(f"order={shown(order)} is not an order of Adams methods here; choose {min(starts)} to 4")
    order = whole
    grid = DEFAULT_GRIDS.get(f"adams{order}", "logistic") if grid is None else grid
    shape_of(grid)
    name = f"Adams-{'Moulton' if corrector else 'Bashforth'} on the path '{path}', polynomial in {basis}"
    return Method(
        solver=Adams(
            basis,
            to_zero=path != "data" and basis in ("sigma", "angle"),
            to_image=True,
            order=order - corrector,
            corrector=corrector,
            start=starts[order],
            most=MOST,
        ),
        path=PATHS[path],
        grid=grid,
        order=order,
        evaluations=1,
        summary=name if starts[order] is EULER else f"{name}; {len(starts[order]) - 1} evaluations more to start",
    )


# lower_order_final of the authors' codes and of diffusers: always in UniPC, below 15 steps in the others.
FEW = 15
AB4 = Adams("sigma", order=4)
PNDM_4 = Adams("timestep", equal_steps, order=4)
PLMS = Adams("timestep", equal_steps, order=4, start=HEUN)
DPM_3 = SingleStep("log_snr", pieces=THIRDS)
DEIS_2 = Adams("log_snr", order=2, lower_final=FEW)
DEIS_3 = Adams("log_snr", order=3, lower_final=FEW)
DPMPP_2M = Adams("log_snr", half, order=2, lower_final=FEW)
DPMPP_3M = Adams("log_snr", half_quadratic, order=3, lower_final=FEW)
UNIPC_2 = Adams("log_snr", half, order=2, corrector=True, lower_final=math.inf)
UNIPC_3 = replace(UNIPC_2, order=3)
UNIPC_2_BH1, UNIPC_3_BH1 = replace(UNIPC_2, rule=bh1), replace(UNIPC_3, rule=bh1)

# (solver, path, order, evaluations a step, summary); the grid is in `default_grids`, or "logistic". The order is the
# one that a method shows, start and end included: with a first (or, by lower_order_final, last) step of Euler it is 2
# whatever the number of slopes.
ROWS: Mapping[str, tuple[Solver, paths.Path, int, int, str]] = {
    "ddim": (Adams("log_snr"), data, 1, 1, "DDIM with eta = 0 (Song et al. 2021, Eq. 12)"),
    "euler": (RungeKutta("euler"), noise, 1, 1, "DDIM as an ODE: Euler in sigma (Song et al. 2021, Eq. 14)"),
    "euler_flow": (RungeKutta("euler"), flow, 1, 1, "Euler of rectified flow (Liu et al. 2023)"),
    "midpoint": (RungeKutta("midpoint"), angle, 2, 2, "midpoint rule in the angle (Runge 1895)"),
    "heun": (RungeKutta("heun2"), noise, 2, 2, "Heun in sigma (EDM: Karras et al. 2022, Alg. 1)"),
    "heun_angle": (RungeKutta("heun2"), angle, 2, 2, "Heun in the angle (Heun 1900)"),
    "heun3": (RungeKutta("heun3"), angle, 3, 3, "Heun of order 3 in the angle (Heun 1900)"),
    "rk4": (RungeKutta("rk4"), angle, 4, 4, "Runge-Kutta, 3/8 rule, in the angle (Kutta 1901)"),
    "plms": (PLMS, noise, 2, 1, "PNDM, one evaluation more to start (Liu et al. 2022; latent-diffusion)"),
    "ipndm": (PNDM_4, noise, 2, 1, "PNDM, fewer slopes to start (Zhang & Chen 2023)"),
    "ipndm_v": (AB4, noise, 2, 1, "iPNDM for unequal steps (diff-sampler); the same as lms"),
    "lms": (AB4, noise, 2, 1, "linear multistep: 4 slopes in sigma (k-diffusion)"),
    "deis_rhoab3": (AB4, noise, 2, 1, "rhoAB3-DEIS (Zhang & Chen 2023); the same as lms"),
    "deis_tab2": (Adams("timestep", order=3), noise, 2, 1, "tAB2-DEIS, 3 slopes (Zhang & Chen 2023)"),
    "deis_tab3": (Adams("timestep", order=4), noise, 2, 1, "tAB3-DEIS, 4 slopes (Zhang & Chen 2023)"),
    "deis_log2": (DEIS_2, noise, 2, 1, "DEIS in log sigma, 2 slopes (diffusers)"),
    "deis_log3": (DEIS_3, noise, 2, 1, "DEIS in log sigma, 3 slopes (diffusers)"),
    "dpm_solver_2": (SingleStep("log_snr", half), noise, 2, 2, "DPM-Solver-2 (Lu et al. 2022, Alg. 1)"),
    "dpm_solver_3": (DPM_3, noise, 3, 3, "DPM-Solver-3 (Lu et al. 2022, Alg. 2)"),
    "dpmpp_2s": (SingleStep("log_snr", half), data, 2, 2, "DPM-Solver++(2S) (Lu et al. 2022b, Alg. 1)"),
    "dpmpp_2m": (DPMPP_2M, data, 2, 1, "DPM-Solver++(2M) (Lu et al. 2022b, Alg. 2)"),
    "dpmpp_3m": (DPMPP_3M, data, 2, 1, "DPM-Solver++(3M) (the authors' code, which loses a factor of 2)"),
    "unipc_2": (UNIPC_2, data, 2, 1, "UniPC-2, B(h) = e^h - 1 (Zhao et al. 2023)"),
    "unipc_2_bh1": (UNIPC_2_BH1, data, 2, 1, "UniPC-2, B(h) = h (Zhao et al. 2023)"),
    "unipc_3": (UNIPC_3, data, 2, 1, "UniPC-3, B(h) = e^h - 1 (Zhao et al. 2023)"),
    "unipc_3_bh1": (UNIPC_3_BH1, data, 2, 1, "UniPC-3, B(h) = h (Zhao et al. 2023)"),
    "fixed_point": (FixedPoint(RungeKutta("euler")), flow, 1, 1, "DDIM; encodes by iteration, 5 a step"),
    "leapfrog": (Leapfrog(), flow, 2, 1, "leapfrog in integers: encodes and decodes bit for bit"),
    "exact_heun": (ReversibleHeun(LATTICE), flow, 2, 1, "reversible Heun in integers: bit for bit"),
    "reversible_heun": (ReversibleHeun(), flow, 2, 1, "reversible Heun in floats (Kidger et al. 2021)"),
    "bdia": (BDIA(), angle, 2, 1, "BDIA-DDIM, gamma = 1 (Zhang et al. 2023)"),
    "belm": (BELM(), noise, 2, 1, "O-BELM, for schedules to sigma = 100 or so (Wang et al. 2024)"),
    "edict": (EDICT(), angle, 1, 2, "EDICT, p = 0.93, likewise (Wallace et al. 2023)"),
}

# (solver, order, evaluations a step, summary): on the flow path, without a grid.
ADAPTIVE: Mapping[str, tuple[Adaptive, int, int, str]] = {
    "adaptive": (AdaptiveAdams(), 6, 1, "Adams predictor-corrector, order 1 to 6 and steps of each sample's own"),
    "dopri5": (TorchDiffEq("dopri5"), 5, 6, "Runge-Kutta 5(4) (Dormand & Prince 1980)"),
    "dopri8": (TorchDiffEq("dopri8"), 8, 13, "Runge-Kutta 8(7) (Prince & Dormand 1981)"),
    "bosh3": (TorchDiffEq("bosh3"), 3, 3, "Runge-Kutta 3(2) (Bogacki & Shampine 1989)"),
    "adaptive_heun": (TorchDiffEq("adaptive_heun"), 2, 2, "Heun 2(1) (Heun 1900)"),
    "fehlberg2": (TorchDiffEq("fehlberg2"), 2, 2, "Runge-Kutta 2(1) (Fehlberg 1969); its errors exceed tol"),
    "scipy_solver": (
        TorchDiffEq("scipy_solver", "RK45"),
        5,
        6,
        "scipy's RK45 (score-SDE code); does not tell its steps",
    ),
}

# (solver, path, default grid, strong order as a whole number, evaluations a step, summary): noise of scale eta = 1.
STOCHASTIC: Mapping[str, tuple[Solver | Adaptive, paths.Path, str, int, int, str]] = {
    "sde_euler": (TorchSDE("euler"), angle, "log_snr", 1, 1, "Euler-Maruyama in log sigma (torchsde: Li et al. 2020)"),
    "sde_milstein": (
        TorchSDE("milstein"),
        angle,
        "log_snr",
        1,
        1,
        "Milstein: sde_euler, as the noise is additive (torchsde)",
    ),
    "sde_heun": (TorchSDE("heun", ito=False), angle, "log_snr", 1, 2, "Heun in log sigma (torchsde)"),
    "sde_midpoint": (TorchSDE("midpoint", ito=False), angle, "log_snr", 1, 2, "midpoint rule in log sigma (torchsde)"),
    "sde_srk": (TorchSDE("srk"), angle, "log_snr", 1, 2, "Roessler's SRA1 in log sigma, strong order 1.5 (torchsde)"),
    "sde_adaptive": (
        AdaptiveSDE("srk"),
        angle,
        "",
        1,
        5,
        "SRA1 in steps of its own choice, each against two halves; tol is that of a step (torchsde)",
    ),
    "sde_dpmpp_2m": (SDEDPMpp2M(), data, "log_snr", 1, 1, "SDE-DPM-Solver++(2M) (Lu et al. 2022b)"),
    "edm_churn": (
        Churn(RungeKutta("heun2")),
        noise,
        "karras",
        1,
        2,
        "EDM's sampler with churn (Karras et al. 2022, Alg. 2)",
    ),
}

METHODS: Mapping[str, Method] = {
    **{
        name: Method(solver, path, DEFAULT_GRIDS.get(name, "logistic"), order, cost, summary)
        for name, (solver, path, order, cost, summary) in ROWS.items()
    },
    "adams2": adams(2),
    "adams3": adams(3, corrector=True),
    "adams4": adams(4),
    **{name: Method(row[0], flow, "", *row[1:]) for name, row in ADAPTIVE.items()},
    **{name: Method(*row) for name, row in STOCHASTIC.items()},
}


def get_method(method: str | Method) -> Method:
    """The row of `METHODS`, or what was made by `adams` as it is. Raises MethodError with the closest name."""
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise MethodError(f"method is {described(method)}; give a name in METHODS, or a Method such as adams(3) makes")
    if method == TUNED:
        raise MethodError(
            f"method={TUNED!r} stands for the tables beside a model, which sample, compare and encode look for"
            "; elsewhere give what load_tuned(FILE) returns"
        )
    choice("method", method, METHODS, MethodError)
    return METHODS[method]


def name_of(method: Method) -> str | None:
    """The name in `METHODS` of a method, with grids that were tuned or without; None of one that is not there."""
    plain = replace(method, grids=(), origin=None)
    return next((name for name, row in METHODS.items() if row == plain), None)
