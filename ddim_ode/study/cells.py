"""The cells of a study: which method is run on which grid, at which budget or tolerance, with how much noise."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ddim_ode.errors import DDIMError, unknown
from ddim_ode.grids import GRIDS
from ddim_ode.solvers import Method, get_method
from ddim_ode.support.scalars import index, number

EtaValue = float | Literal["ddpm_large"] | None


class StudyError(DDIMError):
    """A study that cannot be made as asked."""


@dataclass(frozen=True)
class Cell:
    """One run of a study. Of `nfe` (a budget) and `tol` one is None; the grid is None where the method needs none."""

    method: str
    grid: str | None
    nfe: int | None
    tol: float | None
    eta: EtaValue

    @property
    def key(self) -> str:
        """Its name in the results, unique in a study."""
        asked = f"nfe={self.nfe}" if self.tol is None else f"tol={self.tol!r}"
        return "|".join([self.method, self.grid or "-", asked, *([] if self.eta is None else [f"eta={self.eta}"])])

    def options(self) -> dict[str, Any]:
        """What `sample` is told, but for the method."""
        return {name: value for name, value in asdict(self).items() if name != "method" and value is not None}


def named(methods: Sequence[str] | Mapping[str, str | Method]) -> dict[str, Method]:
    """The methods of a study by name. Raises StudyError for none or one twice, MethodError for one that is unknown."""
    if isinstance(methods, str):
        raise StudyError(f"methods={methods!r} is a string; give a list of names, such as [{methods!r}]")
    if isinstance(methods, Mapping):
        found = {name: get_method(method) for name, method in methods.items()}
    else:
        found = {name: get_method(name) for name in methods}
        if len(found) < len(methods):
            twice = next(name for name in found if list(methods).count(name) > 1)
            raise StudyError(f"methods name {twice} twice; leave one of them out")
    if not found:
        raise StudyError("methods is empty; give at least one, such as 'ddim', or see `ddim-ode methods`")
    return found


def cells_of(
    methods: Mapping[str, Method],
    nfe: Sequence[int],
    tols: Sequence[float],
    grids: Sequence[str],
    etas: Sequence[EtaValue],
) -> list[Cell]:
    """Every method at every budget, on every grid, with every scale of noise; adaptive ones at the tolerances if given.

    The grid "auto" is a method's own, "all" are all that have a name.

    Raises StudyError for a budget, a tolerance or a grid that cannot be, or if nothing is left to run.
    """
    budgets = [_budget(value) for value in _listed("nfe", nfe)]
    tolerances = [_tolerance(value) for value in _listed("tols", tols)]
    scales = [_scale(value) for value in _listed("etas", etas)]
    names = _grids(grids)
    cells = []
    for name, method in methods.items():
        for eta in scales or [None]:
            for grid in [None] if method.adaptive else dict.fromkeys(g or method.grid for g in names):
                if method.adaptive and tolerances:
                    cells += [Cell(name, grid, None, tol, eta) for tol in tolerances]
                else:
                    cells += [Cell(name, grid, budget, None, eta) for budget in budgets]
    if not cells:
        raise StudyError("there is nothing to run; give nfe, a list of budgets (tols are for adaptive methods only)")
    return list(dict.fromkeys(cells))


def _listed(name: str, values: Sequence[Any]) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise StudyError(f"{name}={values!r} is not a list; write [{values!r}]")
    return list(values)


def _scale(value: Any) -> EtaValue:
    if value is None or value == "ddpm_large":
        return value
    if not 0 <= number(value) < math.inf:
        raise StudyError(f"eta={value!r} must be a number >= 0, or 'ddpm_large'")
    return float(value)


def _budget(value: Any) -> int:
    found = index(value)
    if found is None or found < 1:
        raise StudyError(f"nfe={value!r} must be a whole number >= 1")
    return found


def _tolerance(value: Any) -> float:
    if not 0 < number(value) < math.inf:
        raise StudyError(f"tol={value!r} must be a finite number > 0, such as 0.01")
    return float(value)


def _grids(grids: Sequence[str]) -> list[str | None]:
    """Names, and None for a method's own."""
    chosen: list[str | None] = []
    for name in _listed("grids", grids):
        if name not in ("auto", "all", *GRIDS):
            raise StudyError(unknown("grid", str(name), ["auto", "all", *GRIDS]))
        chosen += list(GRIDS) if name == "all" else [None if name == "auto" else name]
    if not chosen:
        raise StudyError("grids is empty; give 'auto' for each method's own")
    return chosen
